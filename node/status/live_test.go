package status

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"keelson/node/loadbalancer"
)

func fill(t *testing.T, l *Live) Report {
	t.Helper()
	var r Report
	l.Fill(t.Context(), &r)
	return r
}

func TestLiveTellsWhatItWaitsFor(t *testing.T) {
	l := new(Live)
	l.begin(noon())
	if r := fill(t, l); r.State != Starting || !r.Started.Equal(noon()) || len(r.Waiting) != 0 {
		t.Errorf("before the first step: got %+v", r)
	}
	entered, leave := make(chan struct{}), make(chan error)
	step := l.step("etcd", func(ctx context.Context) error {
		Reason(ctx, errors.New("no leader"))
		Reason(ctx, nil)
		close(entered)
		return <-leave
	})
	ended := make(chan error)
	go func() { ended <- step(t.Context()) }()
	<-entered
	r := fill(t, l)
	if len(r.Waiting) != 1 || r.Waiting[0].For != "etcd" || r.Waiting[0].Reason != "no leader" || time.Since(r.Waiting[0].Since) > time.Minute {
		t.Errorf("in a step: got %+v", r.Waiting)
	}
	leave <- nil
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if r := fill(t, l); len(r.Waiting) != 0 || r.State != Starting {
		t.Errorf("after it: got %+v", r)
	}
	broken := errors.New("broken")
	if err := l.step("x", func(context.Context) error { return broken })(t.Context()); err != broken {
		t.Errorf("the step's error: got %v", err)
	}
	if r := fill(t, l); len(r.Waiting) != 1 || r.Waiting[0].For != "x" {
		t.Errorf("after a failure: got %+v", r.Waiting)
	}
	l.Done()
	if r := fill(t, l); r.State != Up {
		t.Errorf("at the end: got %s", r.State)
	}
	Reason(t.Context(), broken) // outside of a step it has nowhere to go
}

func TestLiveAsksItsParts(t *testing.T) {
	l := new(Live)
	l.Add(func(_ context.Context, r *Report) { r.Node = "a" })
	l.Add(func(_ context.Context, r *Report) {
		r.Node += "b"
		l.Add(func(context.Context, *Report) {}) // a part may be slow, so that nothing is locked meanwhile
	})
	if r := fill(t, l); r.Node != "ab" {
		t.Errorf("got %q", r.Node)
	}
}

func TestBalancerOf(t *testing.T) {
	b, err := loadbalancer.New(loadbalancer.Config{Name: "lb", Listen: "127.0.0.1:0", Default: "10.0.0.1:9345"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	defer func() { _ = b.Run(ctx) }() // closes it
	b.SetServers([]string{"10.0.0.1:9345", "10.0.0.2:9345"})
	got := BalancerOf("lb", b)
	if got.Name != "lb" || got.Address != b.Address() || !slices.Equal(got.Servers, []Backend{{"10.0.0.1:9345", "UNCHECKED", 0}, {"10.0.0.2:9345", "UNCHECKED", 0}}) {
		t.Errorf("got %+v", got)
	}
}
