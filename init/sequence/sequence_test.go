package sequence

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

type log struct {
	mu    sync.Mutex
	names []string
	errs  map[string]error
}

func (l *log) observe(step string, _ time.Time, _ time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names = append(l.names, step)
	if err != nil {
		if l.errs == nil {
			l.errs = map[string]error{}
		}
		l.errs[step] = err
	}
}

func nothing(context.Context) error { return nil }

func TestOrderAndConcurrency(t *testing.T) {
	meet := make(chan struct{})
	left := func(context.Context) error { meet <- struct{}{}; return nil }
	right := func(context.Context) error { <-meet; return nil } // hangs unless both run at once
	var l log
	err := Run(context.Background(), []Step{
		{Name: "first", Do: nothing},
		{Name: "left", After: []string{"first"}, Do: left},
		{Name: "right", After: []string{"first"}, Do: right},
		{Name: "last", After: []string{"left", "right"}, Do: nothing},
	}, l.observe)
	if err != nil || len(l.names) != 4 || l.names[0] != "first" || l.names[3] != "last" {
		t.Errorf("got %q, %v", l.names, err)
	}
}

func TestFailureEndsTheBoot(t *testing.T) {
	bad := errors.New("bad")
	var l log
	err := Run(context.Background(), []Step{
		{Name: "fails", Policy: Reboot, Do: func(context.Context) error { return bad }},
		{Name: "runs", Do: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
		{Name: "never", After: []string{"fails"}, Do: func(context.Context) error { t.Error("was begun"); return nil }},
	}, l.observe)
	var f *Failure
	if !errors.As(err, &f) || f.Step != "fails" || f.Policy != Reboot || !errors.Is(err, bad) {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(l.names, []string{"fails"}) {
		t.Errorf("observed %q, want the failure alone", l.names)
	}
}

func TestGoOn(t *testing.T) {
	var l log
	err := Run(context.Background(), []Step{
		{Name: "optional", Policy: GoOn, Do: func(context.Context) error { return errors.New("none") }},
		{Name: "next", After: []string{"optional"}, Do: nothing},
	}, l.observe)
	if err != nil || l.errs["optional"] == nil || !slices.Contains(l.names, "next") {
		t.Errorf("got %v, %q", err, l.names)
	}
}

func TestPanicIsAnError(t *testing.T) {
	var l log
	err := Run(context.Background(), []Step{{Name: "panics", Do: func(context.Context) error { panic("oh") }}}, l.observe)
	var p *Panic
	if !errors.As(err, &p) || p.Value != "oh" || !strings.Contains(string(p.Stack), "sequence_test") {
		t.Errorf("got %v", err)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var l log
	err := Run(ctx, []Step{
		{Name: "a", Do: func(ctx context.Context) error { cancel(); <-ctx.Done(); return nil }},
		{Name: "b", After: []string{"a"}, Do: func(context.Context) error { t.Error("was begun"); return nil }},
	}, l.observe)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestCheck(t *testing.T) {
	cases := []struct {
		name  string
		steps []Step
		want  string
	}{
		{"fine", []Step{{Name: "a", Do: nothing}, {Name: "b", After: []string{"a"}, Do: nothing}}, ""},
		{"later one", []Step{{Name: "a", After: []string{"b"}, Do: nothing}, {Name: "b", Do: nothing}}, `waits for "b"`},
		{"itself", []Step{{Name: "a", After: []string{"a"}, Do: nothing}}, `waits for "a"`},
		{"twice", []Step{{Name: "a", Do: nothing}, {Name: "a", Do: nothing}}, "twice"},
		{"no function", []Step{{Name: "a"}}, "without"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := Check(c.steps)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
