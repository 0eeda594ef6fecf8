package reserve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	"keelson/node/nodeevent"
)

// bench is a Watch of a disk that the test tells the size of.
type bench struct {
	*Watch
	free    uint64 // without the reserve's share
	memory  bool
	client  *fake.Clientset
	noAPI   bool
	console bytes.Buffer
	given   []string
}

func newBench(t *testing.T, spares ...Spare) *bench {
	t.Helper()
	b := &bench{client: fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "cp-1"}})}
	w, err := New(Config{
		Dir: t.TempDir(), Node: "cp-1", Spares: spares, Events: new(nodeevent.Recorder), Log: slog.New(slog.DiscardHandler),
		Console: func(text string) { fmt.Fprintln(&b.console, text) },
		Client: func() (kubernetes.Interface, error) {
			if b.noAPI {
				return nil, errors.New("none yet")
			}
			return b.client, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Watch = w
	w.disk = func() (Disk, error) {
		d, err := Look(w.cfg.Dir)
		held := d.Reserve &^ (mib - 1) // file systems add blocks of their own
		return Disk{Total: 256 * mib, Free: b.free - min(b.free, held), Reserve: d.Reserve, InMemory: b.memory}, err
	}
	return b
}

// spare gives up one thing after the other, which frees some bytes each.
func (b *bench) spare(what string, each uint64, names ...string) Spare {
	return Spare{What: what, Give: func(_ context.Context, enough func() bool) (gone []string, err error) {
		for len(names) > 0 && !enough() {
			gone, names = append(gone, names[0]), names[1:]
			b.free += each
		}
		b.given = append(b.given, gone...)
		return gone, nil
	}}
}

func (b *bench) at(t *testing.T, free uint64, want string) {
	t.Helper()
	b.free = free
	if err := b.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, _ := b.State(); s.Reason != want {
		t.Errorf("with %s free: got %s, want %s\n%s", size(free), s.Reason, want, &b.console)
	}
}

func (b *bench) held(t *testing.T) uint64 {
	t.Helper()
	d, err := Look(b.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return d.Reserve
}

// 256 MiB: reserve 32, low 32, enough again 40, critical 16, nothing left 4.
func TestCourseOfAFullDisk(t *testing.T) {
	b := newBench(t)
	b.cfg.Spares = []Spare{b.spare("old snapshots of etcd", 4*mib, "s-1", "s-2"), b.spare("unused container images", 4*mib, "i-1")}
	b.at(t, 200*mib, ReasonEnough)
	if b.held(t) != 0 {
		t.Error("the reserve was taken at the first look, while the machine starts")
	}
	b.at(t, 200*mib, ReasonEnough)
	if got := b.held(t); got < 32*mib {
		t.Fatalf("the reserve holds %d bytes", got)
	}
	b.at(t, (32+33)*mib, ReasonEnough)
	if len(b.given) != 0 || b.console.Len() != 0 {
		t.Errorf("nothing is low: gave up %v, said %s", b.given, &b.console)
	}
	b.at(t, (32+31)*mib, ReasonEnough) // the snapshots bring it to 39, the image to 43
	if !slices.Equal(b.given, []string{"s-1", "s-2", "i-1"}) {
		t.Errorf("gave up %v", b.given)
	}
}

func TestOrderOfWhatGoes(t *testing.T) {
	b := newBench(t)
	b.cfg.Spares = []Spare{b.spare("old snapshots of etcd", 6*mib, "s-1", "s-2", "s-3"), b.spare("unused container images", 4*mib, "i-1")}
	b.at(t, 200*mib, ReasonEnough)
	b.at(t, 200*mib, ReasonEnough)
	b.at(t, (32+30)*mib, ReasonEnough) // two snapshots are enough
	if !slices.Equal(b.given, []string{"s-1", "s-2"}) || b.held(t) < 32*mib {
		t.Errorf("gave up %v, and the reserve holds %d", b.given, b.held(t))
	}
	for _, want := range []string{"nearly full: 30 MiB of 256 MiB are free", "removed old snapshots of etcd: s-1, s-2", "has space again"} {
		if !strings.Contains(b.console.String(), want) {
			t.Errorf("the console lacks %q:\n%s", want, &b.console)
		}
	}
	b.console.Reset()
	b.at(t, (32+5)*mib, ReasonReleased) // 5, then 15 with all that can go: still critical
	if !slices.Equal(b.given, []string{"s-1", "s-2", "s-3", "i-1"}) || b.held(t) != 0 {
		t.Errorf("gave up %v, and the reserve holds %d", b.given, b.held(t))
	}
	said := b.console.String()
	if strings.Index(said, "i-1") > strings.Index(said, "reserve of 32 MiB is given up") {
		t.Errorf("the reserve did not go last:\n%s", said)
	}
	b.console.Reset()
	b.at(t, 10*mib, ReasonReleased)
	b.at(t, 35*mib, ReasonReleased)
	b.at(t, 60*mib, ReasonReleased) // room for all but the reserve
	if b.console.Len() != 0 {
		t.Errorf("the same was said again:\n%s", &b.console)
	}
	b.at(t, 73*mib, ReasonEnough)
	if b.held(t) < 32*mib || !strings.Contains(b.console.String(), "has space again: 41 MiB are free, and 32 MiB are held") {
		t.Errorf("the reserve holds %d:\n%s", b.held(t), &b.console)
	}
}

// Where nothing is left at all, removing things may fail for want of a block.
func TestReserveGoesFirstWhenNothingIsLeft(t *testing.T) {
	b := newBench(t)
	held := uint64(1)
	b.cfg.Spares = []Spare{{What: "x", Give: func(context.Context, func() bool) ([]string, error) {
		held = b.held(t)
		return nil, errors.New("no space left on device")
	}}}
	b.at(t, 200*mib, ReasonEnough)
	b.at(t, 200*mib, ReasonEnough)
	b.free = (32 + 3) * mib
	if err := b.look(t.Context()); err == nil || !strings.Contains(err.Error(), "give up x: no space left") {
		t.Errorf("got %v", err)
	}
	if s, _ := b.State(); s.Reason != ReasonReleased || held != 0 {
		t.Errorf("got %s, and the reserve held %d meanwhile", s.Reason, held)
	}
}

// A machine that starts with a full disk gets its reserve back before etcd starts.
func TestFirstLookReleases(t *testing.T) {
	b := newBench(t)
	if err := take(b.cfg.Dir, 32*mib); err != nil {
		t.Fatal(err)
	}
	b.at(t, (32+1)*mib, ReasonReleased)
	if b.held(t) != 0 {
		t.Error("the reserve is still held")
	}
}

func TestMemoryIsNotReserved(t *testing.T) {
	b := newBench(t)
	b.memory = true
	for range 3 {
		b.at(t, 200*mib, ReasonEnough)
	}
	b.at(t, 3*mib, ReasonLow)
	b.at(t, 200*mib, ReasonEnough)
	if b.held(t) != 0 {
		t.Error("memory is held")
	}
}

// What gives nothing up is not asked with each look.
func TestSparesAreAskedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		asked := 0
		b.cfg.Spares = []Spare{{What: "x", Give: func(context.Context, func() bool) ([]string, error) { asked++; return nil, nil }}}
		b.free, b.noAPI = 20*mib, true
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Second)
		defer cancel()
		if err := b.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if asked != 6 || strings.Count(b.console.String(), "\n") != 1 {
			t.Errorf("asked %d times, said\n%s", asked, &b.console)
		}
	})
}

func TestConditionOfTheNode(t *testing.T) {
	b := newBench(t)
	condition := func() corev1.NodeCondition {
		n, err := b.client.CoreV1().Nodes().Get(t.Context(), "cp-1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range n.Status.Conditions {
			if c.Type == Condition {
				return c
			}
		}
		return corev1.NodeCondition{}
	}
	b.noAPI = true
	b.at(t, 200*mib, ReasonEnough)
	b.show(t.Context())
	b.noAPI = false
	b.show(t.Context())
	if c := condition(); c.Status != corev1.ConditionFalse || c.Reason != ReasonEnough {
		t.Errorf("got %+v", c)
	}
	b.at(t, 20*mib, ReasonLow)
	b.show(t.Context())
	if c := condition(); c.Status != corev1.ConditionTrue || c.Reason != ReasonLow || !strings.Contains(c.Message, "20 MiB of 256 MiB") {
		t.Errorf("got %+v", c)
	}
	writes := len(b.client.Actions())
	for range 3 {
		b.at(t, 21*mib, ReasonLow)
		b.show(t.Context())
	}
	if got := len(b.client.Actions()); got != writes {
		t.Errorf("%d questions to the cluster for what it knows", got-writes)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("an empty configuration was taken")
	}
	b := newBench(t)
	if _, known := b.State(); known {
		t.Error("a state before the first look")
	}
}
