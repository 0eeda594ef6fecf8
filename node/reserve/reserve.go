// Package reserve keeps a node working when its disk fills up. It holds a file that takes space and has no content, beside
// etcd's data; it looks at the file system every few seconds; and when space is low it gives things up in the order of
// what they are worth: first what its owner names (old snapshots, unused images), then the reserve itself, so that etcd, the
// certificates and the kubelet can still write while somebody makes room. The reserve is taken again when space is back.
//
// limits.go has all sizes. What happens is told in the log, on the console, as events on the Node, by its condition
// DiskSpaceLow and in `node status`. The kubelet does what it does beside (it evicts pods); nothing here deletes what
// somebody's workload has written. A state in memory has no reserve: it would be memory that nobody can use.
// node/server and node/agent run a Watch; node/status looks at the disk with Look.
package reserve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"keelson/node/nodeevent"
	"keelson/node/nodeobject"
)

// Condition is on every Node that runs a Watch: True while space is low. Reasons are those below.
const Condition corev1.NodeConditionType = "DiskSpaceLow"

// Reasons, of the condition, of events and of `node status`.
const (
	ReasonEnough   = "EnoughDiskSpace"
	ReasonLow      = "DiskSpaceLow"
	ReasonReleased = "DiskReserveReleased" // space is low, and the reserve is given up
	reasonGiven    = "DiskSpaceFreed"      // an event alone: something was given up
)

// component tells the events.
const component = "keelson"

// How often it looks, and how soon what could give nothing up is asked again.
const (
	lookEvery  = 10 * time.Second
	lookLow    = 2 * time.Second
	againAfter = time.Minute
	giveWithin = 30 * time.Second
	askWithin  = 10 * time.Second
)

// Spare is something that can be given up.
type Spare struct {
	What string // "old snapshots of etcd"
	// Give frees space until enough says that it is, and names what is gone.
	Give func(ctx context.Context, enough func() bool) ([]string, error)
}

// Config of a Watch.
type Config struct {
	Dir     string  // the data folder
	Node    string  // name of this machine's Node
	Spares  []Spare // in the order in which they are given up
	Console func(text string)
	Events  *nodeevent.Recorder
	// Client is the way to the Node; an error while there is none.
	Client func() (kubernetes.Interface, error)
	Log    *slog.Logger
}

// State is what a Watch knows.
type State struct {
	Disk
	Reason string    // ReasonEnough, ReasonLow or ReasonReleased
	Since  time.Time // of the reason
	Text   string    // for people
}

// Watch is one machine's.
type Watch struct {
	cfg    Config
	disk   func() (Disk, error)
	limits func(total uint64) limits

	looked bool      // once at least
	again  time.Time // nobody is asked before that to give something up
	retake time.Time // nor is the reserve taken
	never  bool      // the file system cannot hold space
	shown  string    // reason of the condition as the cluster has it

	mu    sync.Mutex // guards what follows
	state State
}

// New checks the configuration.
func New(c Config) (*Watch, error) {
	if c.Dir == "" || c.Node == "" || c.Console == nil || c.Events == nil || c.Client == nil || c.Log == nil {
		return nil, errors.New("disk reserve: Dir, Node, Console, Events, Client and Log must be set")
	}
	return &Watch{cfg: c, disk: func() (Disk, error) { return Look(c.Dir) }, limits: limitsOf}, nil
}

// State tells what was seen last; false before the first look.
func (w *Watch) State() (State, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state, w.state.Reason != ""
}

// Run looks at once, which is one question to the file system, and then again and again until ctx ends. The reserve is
// not taken at the first look: the machine is just starting.
func (w *Watch) Run(ctx context.Context) error {
	for {
		if err := w.look(ctx); err != nil && ctx.Err() == nil {
			w.cfg.Log.Warn("disk reserve", "error", err)
		}
		w.show(ctx)
		pause := lookEvery
		if s, _ := w.State(); s.Reason != ReasonEnough {
			pause = lookLow
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// look does what the file system's state asks for.
func (w *Watch) look(ctx context.Context) error {
	d, err := w.disk()
	if err != nil {
		return err
	}
	first := !w.looked
	w.looked = true
	l := w.limits(d.Total)
	before, _ := w.State()
	alarm := before.Reason != "" && before.Reason != ReasonEnough
	switch {
	case d.Free < l.low:
		return w.relieve(ctx, d, l)
	case alarm && d.Free < l.back:
		w.set(d, before.Reason) // neither low nor enough: what was stays
		return nil
	case first || w.never || d.InMemory || d.Reserve >= l.size:
	case d.Free >= l.back+l.size-d.Reserve:
		d, err = w.take(d, l)
	case before.Reason == ReasonReleased:
		w.set(d, before.Reason) // room for the reserve is still to be made
		return nil
	}
	w.well(d)
	return err
}

// take has the reserve hold what it should. A file system that cannot do that is asked once, another error is told of
// once a minute.
func (w *Watch) take(d Disk, l limits) (Disk, error) {
	if time.Now().Before(w.retake) {
		return d, nil
	}
	err := take(w.cfg.Dir, l.size)
	if err != nil {
		w.never = errors.Is(err, unix.EOPNOTSUPP)
		w.retake = time.Now().Add(againAfter)
	}
	if now, e := w.disk(); e == nil {
		d = now
	}
	w.cfg.Log.Info("disk reserve", "bytes", d.Reserve, "free", d.Free)
	return d, err
}

// well notes that there is enough space, and tells so after an alarm.
func (w *Watch) well(d Disk) {
	if before, known := w.State(); known && before.Reason != ReasonEnough {
		w.tell(nodeevent.Normal, ReasonEnough, fmt.Sprintf("the disk has space again: %s are free, and %s are held in reserve", size(d.Free), size(d.Reserve)))
	}
	w.set(d, ReasonEnough)
}

// relieve gives up what there is to give, and the reserve last. A disk that has nothing left gets the reserve first:
// taking something away needs space too (containerd's and the file system's own records).
func (w *Watch) relieve(ctx context.Context, d Disk, l limits) error {
	before, _ := w.State()
	reason := before.Reason
	if reason == "" || reason == ReasonEnough {
		reason = ReasonLow
		w.tell(nodeevent.Warning, ReasonLow, fmt.Sprintf("the disk is nearly full: %s of %s are free below %s", size(d.Free), size(d.Total), w.cfg.Dir))
	}
	w.set(d, reason)
	var problems []error
	release := func() {
		if d.Reserve == 0 {
			return
		}
		after, err := w.release(d)
		problems = append(problems, err)
		if err == nil {
			d, reason = after, ReasonReleased
		}
	}
	if d.Free < l.none {
		release()
	}
	if now := time.Now(); !now.Before(w.again) {
		gone := 0
		for _, s := range w.cfg.Spares {
			n, err := w.give(ctx, s, l)
			gone += n
			problems = append(problems, err)
		}
		if gone == 0 {
			w.again = now.Add(againAfter)
		}
		if after, err := w.disk(); err == nil {
			d = after
		}
	}
	if d.Free < l.critical {
		release()
	}
	if reason == ReasonLow && d.Free >= l.back {
		w.well(d)
	} else {
		w.set(d, reason)
	}
	return errors.Join(problems...)
}

// give has one thing given up, and says what is gone.
func (w *Watch) give(ctx context.Context, s Spare, l limits) (int, error) {
	enough := func() bool {
		d, err := w.disk()
		return err == nil && d.Free >= l.back
	}
	if enough() {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, giveWithin)
	defer cancel()
	names, err := s.Give(ctx, enough)
	if len(names) > 0 {
		w.cfg.Log.Warn("given up for disk space", "what", s.What, "names", names)
		w.tell(nodeevent.Warning, reasonGiven, fmt.Sprintf("the disk is nearly full: removed %s: %s", s.What, strings.Join(names, ", ")))
	}
	if err != nil {
		return len(names), fmt.Errorf("give up %s: %w", s.What, err)
	}
	return len(names), nil
}

// release gives the reserve up, and tells how the disk is then.
func (w *Watch) release(d Disk) (Disk, error) {
	held := d.Reserve
	if err := release(w.cfg.Dir); err != nil {
		return d, err
	}
	d.Free, d.Reserve = d.Free+held, 0
	if now, err := w.disk(); err == nil {
		d = now
	}
	w.tell(nodeevent.Warning, ReasonReleased, fmt.Sprintf("the disk is full: the reserve of %s is given up, and %s are free now; make room below %s", size(held), size(d.Free), w.cfg.Dir))
	return d, nil
}

// tell puts it wherever somebody may look.
func (w *Watch) tell(severity, reason, text string) {
	level := slog.LevelWarn
	if severity == nodeevent.Normal {
		level = slog.LevelInfo
	}
	w.cfg.Log.Log(context.Background(), level, "disk space", "reason", reason, "text", text)
	w.cfg.Console(text)
	w.cfg.Events.Tell(nodeevent.Event{Component: component, Severity: severity, Reason: reason, Text: text})
}

// set keeps what is known now.
func (w *Watch) set(d Disk, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if reason != w.state.Reason {
		w.state.Since = time.Now().UTC().Truncate(time.Second)
	}
	w.state.Disk, w.state.Reason, w.state.Text = d, reason, text(d, reason, w.cfg.Dir)
}

func text(d Disk, reason, dir string) string {
	free := fmt.Sprintf("%s of %s are free below %s", size(d.Free), size(d.Total), dir)
	switch reason {
	case ReasonLow:
		return "the disk is nearly full: " + free
	case ReasonReleased:
		return "the disk is full and the reserve is given up: " + free
	}
	return free
}

// show writes the condition when it says something new. What cannot be written now is tried at the next look.
func (w *Watch) show(ctx context.Context) {
	s, known := w.State()
	if !known || s.Reason == w.shown {
		return
	}
	client, err := w.cfg.Client()
	if err != nil {
		return
	}
	c := corev1.NodeCondition{Type: Condition, Status: corev1.ConditionTrue, Reason: s.Reason, Message: s.Text}
	if s.Reason == ReasonEnough {
		c.Status, c.Message = corev1.ConditionFalse, "there is enough free space"
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	if err := nodeobject.SetCondition(ctx, client, w.cfg.Node, c); err != nil {
		w.cfg.Log.Debug("disk reserve: condition", "error", err)
		return
	}
	w.shown = s.Reason
}
