// Package addons keeps the cluster as the manifests under <server>/manifests say: it applies every file as soon as it
// runs and whenever one changes, and removes what left a file (k3s pkg/deploy, by inotify instead of every 15 s).
//
// It never makes manifests and never removes the objects of a file that is gone: that is RKE2's rule. Files come from
// node/manifests and from people. What the API server must have first is for node/server to await.
package addons

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

const (
	// settle is how long a folder must be quiet before it is read: an editor writes in several steps.
	settle = 100 * time.Millisecond
	// A file that could not be applied is tried again: its kind may come with another, the API server may be busy.
	firstRetry, lastRetry = 500 * time.Millisecond, 30 * time.Second
	// maxSize bounds a manifest; etcd takes no object over 1.5 MiB.
	maxSize = 32 << 20
)

// Event is one attempt to apply or remove an add-on. Err is nil when all of it is there (or gone).
type Event struct {
	Addon, File string
	Removed     bool
	Err         error
}

// Config says what to keep and where.
type Config struct {
	Dir     string   // <server>/manifests
	Disable []string // add-ons whose objects and file are removed
	Client  dynamic.Interface
	Mapper  Mapper
	Store   Store
	Observe func(Event) // may be nil; RKE2's Addon objects and their events are to be fed from here
	Log     *slog.Logger
}

// Connect fills Client and Mapper for an API server.
func (c *Config) Connect(server *rest.Config) error {
	client, err := dynamic.NewForConfig(server)
	if err != nil {
		return fmt.Errorf("make client for add-ons: %w", err)
	}
	kinds, err := discovery.NewDiscoveryClientForConfig(server)
	if err != nil {
		return fmt.Errorf("make discovery client for add-ons: %w", err)
	}
	c.Client = client
	c.Mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(kinds))
	return nil
}

// Controller applies the manifests of one folder.
type Controller struct {
	cfg     Config
	applier applier
	watcher *fsnotify.Watcher
	done    map[string][sha256.Size]byte // file to the content that was applied last
	retry   time.Duration
}

// New watches the folder, so that no change after it is missed.
func New(cfg Config) (*Controller, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch manifests: %w", err)
	}
	c := &Controller{
		cfg: cfg, watcher: watcher, done: map[string][sha256.Size]byte{},
		applier: applier{client: cfg.Client, mapper: cfg.Mapper, store: cfg.Store},
	}
	if _, err := c.list(); err != nil {
		watcher.Close()
		return nil, err
	}
	return c, nil
}

// Run applies everything once and then what changes, until ctx is done.
func (c *Controller) Run(ctx context.Context) error {
	defer c.watcher.Close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-c.watcher.Events:
			if !ok {
				return errors.New("watch manifests: the watch has ended")
			}
			if event.Op != fsnotify.Chmod {
				timer.Reset(settle)
			}
		case err, ok := <-c.watcher.Errors:
			if !ok {
				return errors.New("watch manifests: the watch has ended")
			}
			c.cfg.Log.Warn("watch manifests", "error", err) // events were lost: read everything
			timer.Reset(settle)
		case <-timer.C:
			if c.pass(ctx) {
				c.retry = 0
				continue
			}
			c.retry = min(max(2*c.retry, firstRetry), lastRetry)
			timer.Reset(c.retry)
		}
	}
}

// pass applies every file that is new or changed, and tells whether nothing is left to try again.
func (c *Controller) pass(ctx context.Context) bool {
	files, err := c.list()
	if err != nil {
		c.cfg.Log.Error("list manifests", "error", err)
		return false
	}
	// A file that comes back is applied anew, though it has the content that it had.
	present := slices.Collect(maps.Values(files))
	maps.DeleteFunc(c.done, func(file string, _ [sha256.Size]byte) bool { return !slices.Contains(present, file) })
	whole := true
	for _, addon := range slices.Sorted(maps.Keys(files)) {
		if ctx.Err() != nil {
			return true
		}
		if err := c.file(ctx, addon, files[addon]); err != nil {
			c.cfg.Log.Error("manifest", "addon", addon, "error", err)
			whole = false
		}
	}
	for _, addon := range c.cfg.Disable {
		if _, has := files[addon]; has {
			continue
		}
		// Its file is gone already; the objects may not be.
		if err := c.applier.removeAll(ctx, addon, nil); err != nil {
			c.cfg.Log.Error("remove add-on", "addon", addon, "error", err)
			whole = false
		}
	}
	return whole
}

func (c *Controller) file(ctx context.Context, addon, file string) (err error) {
	content, err := read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // gone since it was listed
	}
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	disabled := slices.Contains(c.cfg.Disable, addon)
	if c.done[file] == sum && !disabled {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", file, err)
		}
		if c.cfg.Observe != nil {
			c.cfg.Observe(Event{Addon: addon, File: file, Removed: disabled, Err: err})
		}
	}()
	documents, broken := load(content)
	if disabled {
		if err := c.applier.removeAll(ctx, addon, documents); err != nil {
			return err
		}
		delete(c.done, file)
		if c.linked(file) {
			return nil // RKE2 keeps files that it sees through a symbolic link
		}
		return os.Remove(file)
	}
	if broken != nil {
		// Nothing is pruned by a file that cannot be read whole. Trying again does not mend it, but may help the rest.
		err := c.applier.applyOnly(ctx, addon, documents)
		if err == nil {
			c.done[file] = sum
		}
		return errors.Join(broken, err)
	}
	if err := c.applier.apply(ctx, addon, documents); err != nil {
		return err
	}
	c.done[file] = sum
	c.cfg.Log.Info("add-on applied", "addon", addon, "objects", len(documents))
	return nil
}

func read(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSize {
		return nil, fmt.Errorf("%s: has %d bytes; the most is %d", file, info.Size(), maxSize)
	}
	return os.ReadFile(file)
}

// list finds the manifests below the folder by the names of their add-ons, and watches every folder it sees. Links to
// folders are followed at the top only; a file is left out by a file beside it with .skip after its name.
func (c *Controller) list() (map[string]string, error) {
	files := map[string]string{}
	var walk func(dir string, top bool) error
	walk = func(dir string, top bool) error {
		if err := c.watcher.Add(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("list manifests: %w", err)
		}
		names := map[string]bool{}
		for _, e := range entries {
			names[e.Name()] = true
		}
		for _, e := range entries {
			name := filepath.Join(dir, e.Name())
			if strings.HasPrefix(e.Name(), ".") {
				continue
			}
			info, err := os.Stat(name)
			if err != nil {
				continue // gone, or a dangling link
			}
			if info.IsDir() {
				if top || e.IsDir() {
					if err := walk(name, false); err != nil {
						return err
					}
				}
				continue
			}
			if !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)) || names[e.Name()+".skip"] || !info.Mode().IsRegular() {
				continue
			}
			// RKE2's name of an add-on ends at the first dot.
			addon, _, _ := strings.Cut(e.Name(), ".")
			if other, taken := files[addon]; taken {
				c.cfg.Log.Warn("two manifests have one name; the second is left out", "addon", addon, "used", other, "ignored", name)
				continue
			}
			files[addon] = name
		}
		return nil
	}
	return files, walk(c.cfg.Dir, true)
}

// linked tells whether a file is seen through a symbolic link to a folder.
func (c *Controller) linked(file string) bool {
	real, err := filepath.EvalSymlinks(filepath.Dir(file))
	if err != nil {
		return true
	}
	base, err := filepath.EvalSymlinks(c.cfg.Dir)
	return err != nil || (real != base && !strings.HasPrefix(real, base+"/"))
}
