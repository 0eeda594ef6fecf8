package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"keelson/init/uevent"

	"golang.org/x/sys/unix"
)

// LoaderConfig is what a Loader needs.
type LoaderConfig struct {
	Dir    string            // /usr/lib/modules/<kernel release>
	Sys    string            // "/sys"
	Params map[string]string // by module, from the command line
	Logger *slog.Logger

	// Insert loads one file; nil means finit_module(2).
	Insert func(file, params string) error
}

// Loader loads modules, each once.
type Loader struct {
	cfg   LoaderConfig
	index *Index

	mu    sync.Mutex
	state map[string]*loading
}

type loading struct {
	done chan struct{}
	err  error
}

// NewLoader reads the index of cfg.Dir.
func NewLoader(cfg LoaderConfig) (*Loader, error) {
	index, err := LoadIndex(os.DirFS(cfg.Dir))
	if err != nil {
		return nil, fmt.Errorf("module index %s: %w", cfg.Dir, err)
	}
	if cfg.Insert == nil {
		cfg.Insert = insert
	}
	return &Loader{cfg: cfg, index: index, state: map[string]*loading{}}, nil
}

// Load loads modules by name or alias with what they need, side by side where
// they do not need each other. What the kernel has built in is fine; an unknown
// name is an error, and so is a module that does not load.
func (l *Loader) Load(names ...string) error {
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		targets := l.index.Resolve(name)
		if len(targets) == 0 && !l.builtin(name) {
			errs[i] = fmt.Errorf("module %s: not in %s", name, l.cfg.Dir)
			continue
		}
		for _, target := range targets {
			wg.Go(func() {
				if err := l.load(target); err != nil {
					errs[i] = err
				}
			})
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (l *Loader) builtin(name string) bool {
	if l.index.Has(name) {
		return true
	}
	_, err := os.Stat(filepath.Join(l.cfg.Sys, "module", normal(name)))
	return err == nil
}

// load loads one module after all that it needs. The graph has no cycles:
// depmod refuses them and cutCycles dropped the soft ones.
func (l *Loader) load(name string) error {
	l.mu.Lock()
	st, begun := l.state[name]
	if !begun {
		st = &loading{done: make(chan struct{})}
		l.state[name] = st
	}
	l.mu.Unlock()
	if begun {
		<-st.done
		return st.err
	}
	defer close(st.done)
	if l.live(name) {
		return nil
	}

	m := l.index.modules[name]
	var wg sync.WaitGroup
	errs := make([]error, len(m.deps))
	for i, dep := range m.deps {
		wg.Go(func() { errs[i] = l.load(dep) })
	}
	for _, dep := range m.soft {
		wg.Go(func() {
			if err := l.load(dep); err != nil {
				l.cfg.Logger.Debug("soft dependency", "module", name, "error", err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		st.err = fmt.Errorf("module %s: %w", name, err)
		return st.err
	}
	err := l.cfg.Insert(filepath.Join(l.cfg.Dir, m.path), l.cfg.Params[name])
	if err != nil && !errors.Is(err, fs.ErrExist) {
		st.err = fmt.Errorf("load module %s: %w", name, err)
	}
	return st.err
}

// live reports whether a module is loaded already, with all that it needs: the
// initramfs loaded some, and reading one again through dm-verity for the kernel
// to refuse it costs more than the look (kernel/module/sysfs.c, initstate).
func (l *Loader) live(name string) bool {
	b, err := os.ReadFile(filepath.Join(l.cfg.Sys, "module", name, "initstate"))
	return err == nil && trimLine(b) == "live"
}

// insert is finit_module(2). The builder lays modules down uncompressed, which
// loads fastest; the kernel unpacks the others itself where it can.
func insert(file, params string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if filepath.Ext(file) != ".ko" {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	if err := unix.FinitModule(int(f.Fd()), params, flags); err != nil {
		return &fs.PathError{Op: "finit_module", Path: file, Err: err}
	}
	return nil
}

// Probe loads the modules for one device. A driver that finds nothing to do
// (ENODEV) or fails is logged: the boot step that needs the device says so.
func (l *Loader) Probe(modalias string) {
	var wg sync.WaitGroup
	for _, target := range l.index.Resolve(modalias) {
		wg.Go(func() {
			if err := l.load(target); err != nil {
				l.cfg.Logger.Warn("module for device", "modalias", modalias, "error", err)
			}
		})
	}
	wg.Wait()
}

// Coldplug loads the modules for every device that is there now.
func (l *Loader) Coldplug() error {
	var wg sync.WaitGroup
	seen := map[string]bool{}
	// input devices are a class without a bus (drivers/input/input.c).
	for _, pattern := range []string{"bus/*/devices/*/modalias", "class/input/*/modalias"} {
		files, err := filepath.Glob(filepath.Join(l.cfg.Sys, pattern))
		if err != nil {
			return fmt.Errorf("list devices: %w", err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				continue // the device went away, or shows no modalias
			}
			modalias := trimLine(b)
			if modalias == "" || seen[modalias] {
				continue
			}
			seen[modalias] = true
			if len(l.index.Resolve(modalias)) > 0 {
				wg.Go(func() { l.Probe(modalias) })
			}
		}
	}
	wg.Wait()
	return nil
}

// Run loads modules for devices that appear, until ctx ends. Coldplug belongs
// after sub was made, so that no device falls in between.
func (l *Loader) Run(ctx context.Context, sub *uevent.Subscription) error {
	for {
		ev, err := sub.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("wait for devices: %w", err)
		case ev.Action == uevent.Lost:
			if err := l.Coldplug(); err != nil {
				l.cfg.Logger.Warn("devices", "error", err)
			}
		case ev.Action == "add" && ev.Env["MODALIAS"] != "":
			// A probe may wait for others and a slow device must not hold up
			// the next one.
			go l.Probe(ev.Env["MODALIAS"])
		}
	}
}

func trimLine(b []byte) string {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == ' ') {
		b = b[:len(b)-1]
	}
	return string(b)
}
