package member

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"keelson/node/etcd"
)

// TestPair: what two servers can show. etcd's own look at the last 5 s is off, to be quick.
func TestPair(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	l := newLAN(t)
	a := l.machine(t, 11, "a", nil)
	b := l.machine(t, 12, "b", a)
	a.loose, b.loose = "false", "false"
	if err := a.serve(ctx); err != nil {
		t.Fatal(err)
	}
	client := l.client(t, a)

	step(t, "the leader promotes a learner whose own supervisor is gone", func(t *testing.T) {
		running, stop := context.WithCancel(ctx)
		defer stop()
		c := a.controller(t, nil)
		c.every = 50 * time.Millisecond
		go func() { _ = c.Run(running) }()
		if err := b.begin(ctx); err != nil {
			t.Fatal(err)
		}
		eventually(ctx, t, "two voters", func() bool {
			v, n := voters(ctx, t, client)
			return v == 2 && n == 0
		})
		// The supervisor, when it is back, finds nothing left to do.
		if err := Promote(ctx, b.config(), nil); err != nil {
			t.Error(err)
		}
	})
	step(t, "servers of two clusters", func(t *testing.T) {
		z := l.machine(t, 13, "z", nil)
		if err := z.serve(ctx); err != nil {
			t.Fatal(err)
		}
		config := b.config()
		config.Others = func(context.Context) ([]string, error) { return []string{z.url()}, nil }
		if _, _, err := Start(ctx, config); !errors.Is(err, ErrTwoClusters) {
			t.Errorf("got %v, want ErrTwoClusters", err)
		}
		if has, err := etcd.HasData(b.dir); !has || err != nil {
			t.Errorf("the data is gone: %v", err)
		}
	})
	step(t, "data that must be put away while etcd runs", func(t *testing.T) {
		z := l.machine(t, 14, "y", nil)
		if err := z.serve(ctx); err != nil {
			t.Fatal(err)
		}
		config := z.config()
		config.Others = func(context.Context) ([]string, error) { return []string{a.url()}, nil }
		if _, _, err := Start(ctx, config); !errors.Is(err, etcd.ErrInUse) {
			t.Errorf("got %v, want ErrInUse", err)
		}
		if has, err := etcd.HasData(z.dir); !has || err != nil {
			t.Errorf("the data is gone: %v", err)
		}
	})
	step(t, "removed while it does not run", func(t *testing.T) {
		gone := number(t, b.id())
		if _, err := client.MemberRemove(ctx, gone); err != nil {
			t.Fatal(err)
		}
		<-b.etcd.Server.StopNotify()
		b.kill()
		if err := b.config().watch(ctx, 100*time.Millisecond); !errors.Is(err, ErrRemoved) {
			t.Errorf("a pod that starts again and again: got %v, want ErrRemoved", err)
		}
		waiting, cancel := context.WithTimeout(ctx, 2*callTimeout)
		defer cancel()
		if err := Promote(waiting, b.config(), b.endpoints); !errors.Is(err, ErrRemoved) {
			t.Errorf("a start that waits for it: got %v, want ErrRemoved", err)
		}
		before := b.params.Name
		b.params = etcd.Params{}
		if err := b.serve(ctx); err != nil {
			t.Fatal(err)
		}
		if b.params.Name == before || number(t, b.id()) == gone {
			t.Errorf("it is %s again", before)
		}
		if olds, _ := filepath.Glob(filepath.Join(b.dir, "server/db/etcd-old-*")); len(olds) != 1 {
			t.Errorf("old data: got %v", olds)
		}
	})
}

// TestSetCondition: written when it is news, or when the last is old; the time of a change is that of the change.
func TestSetCondition(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	before := func(status corev1.ConditionStatus, reason string, age time.Duration) []corev1.NodeCondition {
		return []corev1.NodeCondition{{
			Type: ConditionVoter, Status: status, Reason: reason,
			LastHeartbeatTime: metav1.NewTime(now.Add(-age)), LastTransitionTime: metav1.NewTime(now.Add(-time.Hour)),
		}}
	}
	for _, c := range []struct {
		name    string
		have    []corev1.NodeCondition
		err     error
		written bool
		changed time.Time
	}{
		{"first", nil, ErrRemoved, true, now},
		{"the same", before(corev1.ConditionFalse, "NotAMember", time.Minute), ErrRemoved, false, now.Add(-time.Hour)},
		{"the same, old", before(corev1.ConditionFalse, "NotAMember", 6*time.Minute), ErrRemoved, true, now.Add(-time.Hour)},
		{"the same, from a clock that was ahead", before(corev1.ConditionFalse, "NotAMember", -time.Hour), ErrRemoved, true, now.Add(-time.Hour)},
		{"another reason", before(corev1.ConditionFalse, "NotAMember", time.Minute), errors.New("refused"), true, now.Add(-time.Hour)},
		{"another status", before(corev1.ConditionTrue, "MemberNotLearner", time.Minute), ErrRemoved, true, now},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := node("a", "u", "", "")
			n.Status.Conditions = c.have
			client := fake.NewClientset(n)
			factory := informers.NewSharedInformerFactory(client, 0)
			if err := factory.Core().V1().Nodes().Informer().GetStore().Add(n); err != nil {
				t.Fatal(err)
			}
			controller := &Controller{ControllerConfig: ControllerConfig{Node: "a", Nodes: client, Log: quiet()}, lister: factory.Core().V1().Nodes().Lister()}
			if err := controller.setCondition(t.Context(), nil, c.err, now); err != nil {
				t.Fatal(err)
			}
			if got := len(client.Actions()) > 0; got != c.written {
				t.Errorf("written: %v", got)
			}
			after, err := client.CoreV1().Nodes().Get(t.Context(), "a", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := after.Status.Conditions[0].LastTransitionTime; !got.Time.Equal(c.changed) {
				t.Errorf("changed at %v, want %v", got, c.changed)
			}
		})
	}
	// A Node that is not there yet is no error, and neither is a server that does not look at Nodes.
	client := fake.NewClientset()
	empty := &Controller{ControllerConfig: ControllerConfig{Node: "a", Nodes: client}, lister: informers.NewSharedInformerFactory(client, 0).Core().V1().Nodes().Lister()}
	if err := errors.Join(empty.setCondition(t.Context(), nil, ErrRemoved, now), (&Controller{}).setCondition(t.Context(), nil, ErrRemoved, now)); err != nil {
		t.Error(err)
	}
}

// TestConfirm: the cluster's own word decides, not what an informer remembers.
func TestConfirm(t *testing.T) {
	m := voting(1, "a-01")
	seen := sighting{Node: "a", UID: "u"}
	for _, c := range []struct {
		name            string
		there           []runtime.Object
		deleted, wished bool
	}{
		{"gone", nil, true, false},
		{"still there", []runtime.Object{node("a", "u", "a-01", "10.0.0.1")}, false, true},
		{"another's, unmarked", []runtime.Object{node("a", "v", "", "")}, false, false},
		{"another's", []runtime.Object{node("a", "v", "a-02", "10.0.0.1")}, true, false},
		{"this one's, registered anew", []runtime.Object{node("a", "v", "a-01", "10.0.0.1")}, false, false},
	} {
		controller := &Controller{ControllerConfig: ControllerConfig{Nodes: fake.NewClientset(c.there...)}}
		for requested, want := range map[bool]bool{false: c.deleted, true: c.wished} {
			if got, err := controller.confirm(t.Context(), departure{member: m, seen: seen, requested: requested}); err != nil || got != want {
				t.Errorf("%s, requested %v: got %v, %v", c.name, requested, got, err)
			}
		}
	}
}
