// Package addons keeps the cluster as the manifests under <server>/manifests say: it applies every file as soon as it
// runs and whenever one changes, and removes what left a file (k3s pkg/deploy, by inotify instead of every 15 s). What it
// knows of each file is in an Addon object, on which it tells what it does and what fails as events.
//
// It never makes manifests and never removes the objects of a file that is gone: that is RKE2's rule. Files come from
// node/manifests and from people. What the API server must have first is for node/server to await.
package addons

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
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
	Events  typedcorev1.EventsGetter // what is told on Addon objects; nil: nothing
	Node    string                   // that tells it
	// Coming are groups of kinds that the server itself makes known, each with what is closed when they are served. Until
	// then a file that has some is kept waiting: it would fail, and every first boot would tell so.
	Coming  map[string]<-chan struct{}
	Observe func(Event) // may be nil
	Log     *slog.Logger
}

// Connect fills Client, Mapper and Events for an API server.
func (c *Config) Connect(server *rest.Config) error {
	server = rest.CopyConfig(server)
	server.QPS, server.Burst = 50, 300 // kubectl's, which has the same to do; client-go's own would take seconds of a boot
	client, err := dynamic.NewForConfig(server)
	if err != nil {
		return fmt.Errorf("make client for add-ons: %w", err)
	}
	kinds, err := discovery.NewDiscoveryClientForConfig(server)
	if err != nil {
		return fmt.Errorf("make discovery client for add-ons: %w", err)
	}
	events, err := typedcorev1.NewForConfig(server)
	if err != nil {
		return fmt.Errorf("make client for events: %w", err)
	}
	c.Client, c.Events = client, events
	c.Mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(kinds))
	return nil
}

// Controller applies the manifests of one folder.
type Controller struct {
	cfg     Config
	applier applier
	records records
	watcher *fsnotify.Watcher
	defined bool                         // the kind Addon
	done    map[string][sha256.Size]byte // file to the content that was applied last
	reports map[string]report            // of add-ons whose record could not be written yet
	tell    func(record, note)           // makes an event
	retry   time.Duration
}

// New watches the folder, so that no change after it is missed.
func New(cfg Config) (*Controller, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch manifests: %w", err)
	}
	c := &Controller{
		cfg: cfg, watcher: watcher, done: map[string][sha256.Size]byte{}, reports: map[string]report{}, tell: func(record, note) {},
		applier: applier{client: cfg.Client, mapper: cfg.Mapper}, records: records{cfg.Client},
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
	if c.cfg.Events != nil {
		stop := c.startTelling()
		defer stop()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	come := c.come(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-come:
			timer.Reset(0)
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
	if !c.defined {
		// The API server serves the kind a moment later, and what the files hold is not kept waiting for that.
		if err := c.records.define(ctx); err != nil {
			c.cfg.Log.Error("add-ons", "error", err)
		} else {
			c.defined = true
		}
	}
	files, err := c.list()
	if err != nil {
		c.cfg.Log.Error("list manifests", "error", err)
		return false
	}
	// A file that comes back is applied anew, though it has the content that it had.
	present := slices.Collect(maps.Values(files))
	maps.DeleteFunc(c.done, func(file string, _ [sha256.Size]byte) bool { return !slices.Contains(present, file) })
	whole := c.defined
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
		if err := c.forget(ctx, addon); err != nil {
			c.cfg.Log.Error("remove add-on", "addon", addon, "error", err)
			whole = false
		}
	}
	if !c.report(ctx) {
		return false
	}
	for addon, file := range files {
		if _, applied := c.done[file]; !applied && !slices.Contains(c.cfg.Disable, addon) {
			return false
		}
	}
	return whole
}

// file brings the cluster in line with one file.
func (c *Controller) file(ctx context.Context, addon, file string) (err error) {
	if slices.Contains(c.cfg.Disable, addon) {
		return c.disable(ctx, addon, file)
	}
	content, err := read(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && c.early(content) {
		return nil // gone since it was listed, or to come back to
	}
	sum := sha256.Sum256(content)
	if err == nil && c.done[file] == sum {
		return nil
	}
	rec, unknown := c.records.load(ctx, addon)
	if unknown != nil && !errors.Is(unknown, errNotServed) {
		return unknown
	}
	rec.name, rec.source = addon, file
	var r report
	failed := reasonRead
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", file, err)
			r.note(corev1.EventTypeWarning, failed, err.Error())
		}
		r.record = rec
		c.reports[addon] = r
		c.observe(Event{Addon: addon, File: file, Err: err})
	}()
	if err != nil {
		return err
	}
	documents, broken := load(content)
	before := rec.kinds
	rec.kinds = with(rec.kinds, documents)
	if unknown == nil && len(rec.kinds) != len(before) {
		// Before any object of a new kind is there, so that it is found again, whenever the power goes.
		failed = reasonValidate
		if err := c.records.save(ctx, &rec); err != nil {
			return err
		}
	}
	r.note(corev1.EventTypeNormal, reasonApplying, "Applying manifest at "+strconv.Quote(file))
	refs, err := c.applier.apply(ctx, addon, documents)
	if broken != nil {
		// Nothing is pruned by a file that cannot be read whole. Trying again does not mend it, but may help the rest.
		failed = reasonParse
		if err == nil {
			c.done[file] = sum
		}
		return errors.Join(broken, err)
	}
	failed = reasonApply
	if err != nil {
		return err
	}
	checksum := hex.EncodeToString(sum[:])
	if rec.checksum != checksum && rec.uid != "" {
		if err := c.applier.prune(ctx, addon, rec.kinds, refs); err != nil {
			return err
		}
	}
	rec.checksum, rec.kinds = checksum, with(nil, documents)
	c.done[file] = sum
	r.note(corev1.EventTypeNormal, reasonApplied, "Applied manifest at "+strconv.Quote(file))
	c.cfg.Log.Info("add-on applied", "addon", addon, "objects", len(documents))
	return nil
}

// disable removes what a file has in the cluster, and the file.
func (c *Controller) disable(ctx context.Context, addon, file string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", file, err)
		}
		c.observe(Event{Addon: addon, File: file, Removed: true, Err: err})
	}()
	rec, err := c.records.load(ctx, addon)
	if err != nil && !errors.Is(err, errNotServed) {
		return err
	}
	content, err := read(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	documents, _ := load(content) // what can be read of it; the rest is found by its marks
	if err := c.applier.removeAll(ctx, addon, rec.kinds, documents); err != nil {
		return err
	}
	delete(c.done, file)
	delete(c.reports, addon)
	if rec.uid != "" {
		c.tell(rec, note{corev1.EventTypeNormal, reasonDeleting, "Deleting manifest at " + strconv.Quote(file)})
	}
	if err := c.records.drop(ctx, rec); err != nil {
		return err
	}
	if c.linked(file) {
		return nil // RKE2 keeps files that it sees through a symbolic link
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// forget removes what a disabled add-on has in the cluster whose file is gone already.
func (c *Controller) forget(ctx context.Context, addon string) error {
	rec, err := c.records.load(ctx, addon)
	if err != nil || rec.uid == "" {
		return err
	}
	if err := c.applier.removeAll(ctx, addon, rec.kinds, nil); err != nil {
		return err
	}
	return c.records.drop(ctx, rec)
}

func (c *Controller) observe(e Event) {
	if c.cfg.Observe != nil {
		c.cfg.Observe(e)
	}
}
