package nodeevent

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// cluster gives each event that is created, or counted again, to a channel.
func cluster(t *testing.T) (*fake.Clientset, <-chan corev1.Event) {
	t.Helper()
	client, events := fake.NewClientset(), make(chan corev1.Event, 100)
	client.PrependReactor("create", "events", func(a clienttesting.Action) (bool, runtime.Object, error) {
		e := a.(clienttesting.CreateAction).GetObject().(*corev1.Event)
		events <- *e
		return false, nil, nil
	})
	client.PrependReactor("patch", "events", func(a clienttesting.Action) (bool, runtime.Object, error) {
		events <- corev1.Event{Message: string(a.(clienttesting.PatchAction).GetPatch())}
		return false, nil, nil
	})
	return client, events
}

func next(t *testing.T, events <-chan corev1.Event) corev1.Event {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(20 * time.Second):
		t.Fatal("no event came")
		return corev1.Event{}
	}
}

func run(t *testing.T, r *Recorder, client *fake.Clientset) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, client, "cp-1") }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestEventsAreOnTheNode(t *testing.T) {
	client, events := cluster(t)
	r := new(Recorder)
	r.Tell(Event{"early", Warning, "Held", "before there was a cluster"})
	defer run(t, r, client)()
	e := next(t, events)
	about := e.InvolvedObject
	if about.Kind != "Node" || about.Name != "cp-1" || about.UID != "cp-1" || about.Namespace != "" || e.Namespace != "default" {
		t.Errorf("it is about %+v, in namespace %q; kubectl describe node would not find it", about, e.Namespace)
	}
	if e.Source.Component != "early" || e.Source.Host != "cp-1" || e.Type != "Warning" || e.Reason != "Held" || e.Message != "before there was a cluster" {
		t.Errorf("got %+v", e)
	}
	r.Tell(Event{"late", Normal, "Long", strings.Repeat("x", 2000)})
	if e := next(t, events); e.Source.Component != "late" || len(e.Message) != mostText || !strings.HasSuffix(e.Message, "x...") {
		t.Errorf("got component %q and %d bytes", e.Source.Component, len(e.Message))
	}
	r.Tell(Event{"early", Warning, "Held", "before there was a cluster"})
	if e := next(t, events); !strings.Contains(e.Message, `"count":2`) {
		t.Errorf("the same again: got %s, want the first one counted twice", e.Message)
	}
}

// Who tells without end is cut off, and what others tell arrives.
func TestFloodIsBounded(t *testing.T) {
	client, events := cluster(t)
	r := new(Recorder)
	defer run(t, r, client)()
	for i := range 60 {
		r.Tell(Event{"loud", Normal, "Flood", fmt.Sprint(i)})
	}
	r.Tell(Event{"other", Warning, "Heard", "x"})
	loud := 0
	for {
		e := next(t, events)
		if e.Reason == "Heard" {
			break
		}
		loud++
	}
	if loud == 0 || loud > 25 {
		t.Errorf("%d of 60 were written, want 1 to 25", loud)
	}
}

func TestHeldEventsAreBounded(t *testing.T) {
	r := new(Recorder)
	for i := range 3 * mostHeld {
		r.Tell(Event{"x", Normal, "R", fmt.Sprint(i)})
	}
	if len(r.held) != mostHeld || r.held[mostHeld-1].Text != fmt.Sprint(3*mostHeld-1) {
		t.Errorf("%d are held, the last is %+v; want the newest %d", len(r.held), r.held[len(r.held)-1], mostHeld)
	}
	client, _ := cluster(t)
	stop := run(t, r, client)
	stop()
	r.Tell(Event{"x", Normal, "R", "after the end"}) // must not panic
}
