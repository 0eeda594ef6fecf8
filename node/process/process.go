// Package process keeps one child program of the supervisor running: it starts it, collects its output in a bounded
// file, and starts it again when it ends. It never decides what to run: node/server gives it containerd and the
// kubelet. A child dies with the supervisor (parent-death signal), so that a restarted supervisor never meets an
// older twin of its own children; the containers themselves live on under their shims.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
)

// How long a child that keeps ending waits before its next start: doubled from first to last, and back to first once
// it has stayed up for steady.
const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = 10 * time.Second
	steady     = 30 * time.Second
)

// Bounds of a log file: RKE2's for containerd and kubelet (50 MB), fewer old ones since STATE is small.
const (
	logMegabytes = 50
	logBackups   = 2
)

// Config describes the child.
type Config struct {
	Name string   // as logs call it
	Path string   // program, absolute
	Args []string // without the program's name
	Env  []string // whole environment; nothing is inherited
	Dir  string   // working directory, "" for the supervisor's
	// LogFile takes the child's output, rotated at 50 MB with two old files kept. Its folder is made.
	LogFile string
	// StopTimeout is how long a child may take to end after SIGTERM before it gets SIGKILL; zero means 10 s.
	StopTimeout time.Duration
	Log         *slog.Logger
}

// Process is one supervised child.
type Process struct {
	cfg   Config
	delay delays

	mu      sync.Mutex
	current *os.Process // nil while none runs
	starts  int
}

// New checks the configuration; nothing is started.
func New(cfg Config) (*Process, error) {
	if cfg.Name == "" || !filepath.IsAbs(cfg.Path) {
		return nil, fmt.Errorf("process %q: program %q must be an absolute path", cfg.Name, cfg.Path)
	}
	if cfg.LogFile == "" {
		return nil, fmt.Errorf("process %s: no log file", cfg.Name)
	}
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Process{cfg: cfg, delay: delays{first: firstDelay, last: lastDelay, steady: steady}}, nil
}

// Run starts the child and starts it anew whenever it ends, until ctx is done; then it asks the child to end, and
// returns when it has. It fails only when the program or its log cannot be used at all.
func (p *Process) Run(ctx context.Context) error {
	if _, err := os.Stat(p.cfg.Path); err != nil {
		return fmt.Errorf("process %s: %w", p.cfg.Name, err)
	}
	if err := os.MkdirAll(filepath.Dir(p.cfg.LogFile), 0o700); err != nil {
		return fmt.Errorf("process %s: make log folder: %w", p.cfg.Name, err)
	}
	out := &lumberjack.Logger{Filename: p.cfg.LogFile, MaxSize: logMegabytes, MaxBackups: logBackups}
	defer out.Close()

	for {
		began := time.Now()
		err := p.once(ctx, out)
		if ctx.Err() != nil {
			return nil
		}
		wait := p.delay.next(time.Since(began))
		p.cfg.Log.Warn("child ended", "process", p.cfg.Name, "error", describe(err), "restart_in", wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// Starts tells how often the child has been started; more than one means that it ended at least once.
func (p *Process) Starts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// once runs the child a single time. The kernel sends the parent-death signal when the thread that forked dies, not
// the process, so the thread is held for as long as the child lives.
func (p *Process) once(ctx context.Context, out io.Writer) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := exec.CommandContext(ctx, p.cfg.Path, p.cfg.Args...)
		cmd.Env = p.cfg.Env
		cmd.Dir = p.cfg.Dir
		cmd.Stdout, cmd.Stderr = out, out
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = p.cfg.StopTimeout
		err := p.start(cmd)
		if err == nil {
			err = cmd.Wait()
			p.ended()
		}
		done <- err
	}()
	return <-done
}

// start holds the lock until the child is known: a signal that comes when it already runs would else be lost.
func (p *Process) start(cmd *exec.Cmd) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	p.current = cmd.Process
	p.starts++
	return nil
}

func (p *Process) ended() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = nil
}

// Signal sends sig to the child, if one runs.
func (p *Process) Signal(sig os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil {
		return nil
	}
	if err := p.current.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.cfg.Name, err)
	}
	return nil
}

func describe(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// delays yields how long to wait before each restart.
type delays struct {
	first, last, steady time.Duration
	current             time.Duration
}

// next gives the wait after a run that lasted ran.
func (d *delays) next(ran time.Duration) time.Duration {
	if d.current == 0 || ran >= d.steady {
		d.current = d.first
		return d.current
	}
	d.current = min(2*d.current, d.last)
	return d.current
}
