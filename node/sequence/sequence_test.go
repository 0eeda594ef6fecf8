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

func nothing(context.Context) error { return nil }

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []Step
		want  string // part of the error, "" for none
	}{
		{"empty", nil, ""},
		{"backwards", []Step{{Name: "a", Run: nothing}, {Name: "b", After: []string{"a"}, Run: nothing}}, ""},
		{"forwards", []Step{{Name: "a", After: []string{"b"}, Run: nothing}, {Name: "b", Run: nothing}}, "not listed before"},
		{"itself", []Step{{Name: "a", After: []string{"a"}, Run: nothing}}, "not listed before"},
		{"unknown", []Step{{Name: "a", After: []string{"x"}, Run: nothing}}, `"x"`},
		{"twice", []Step{{Name: "a", Run: nothing}, {Name: "a", Run: nothing}}, "twice"},
		{"no function", []Step{{Name: "a"}}, "needed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Check(c.steps)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// A step that is skipped does nothing, and what comes after it still comes after all that it names.
func TestSkippedStepsKeepTheOrder(t *testing.T) {
	began, ended := make(chan struct{}), false
	var reported []string
	err := Run(context.Background(), []Step{
		{Name: "a", Run: func(context.Context) error { <-began; ended = true; return nil }},
		{Name: "b", After: []string{"a"}, Skip: true, Run: func(context.Context) error { return errors.New("it ran") }},
		{Name: "c", Skip: true, Run: nothing},
		{Name: "d", After: []string{"c"}, Run: func(context.Context) error { close(began); return nil }},
		{Name: "e", After: []string{"b", "d"}, Run: func(context.Context) error {
			if !ended {
				return errors.New("e began before a had ended")
			}
			return nil
		}},
	}, func(name string, _ time.Duration, _ error) {
		if name == "b" || name == "c" {
			reported = append(reported, name)
		}
	})
	if err != nil || len(reported) > 0 {
		t.Errorf("got %v, and %v told of, want neither", err, reported)
	}
}

func TestRunKeepsTheOrder(t *testing.T) {
	var mu sync.Mutex
	var order []string
	note := func(name string) func(context.Context) error {
		return func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
			return nil
		}
	}
	steps := []Step{
		{Name: "a", Run: note("a")},
		{Name: "b", After: []string{"a"}, Run: note("b")},
		{Name: "c", After: []string{"a"}, Run: note("c")},
		{Name: "d", After: []string{"b", "c"}, Run: note("d")},
	}
	var reported []string
	err := Run(context.Background(), steps, func(name string, _ time.Duration, err error) {
		mu.Lock()
		defer mu.Unlock()
		reported = append(reported, name)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(order) != 4 || order[0] != "a" || order[3] != "d" {
		t.Errorf("order: got %v, want a first and d last of four", order)
	}
	slices.Sort(reported)
	if !slices.Equal(reported, []string{"a", "b", "c", "d"}) {
		t.Errorf("reported: got %v, want each step once", reported)
	}
}

// Two steps that wait for each other's beginning can only end when they run side by side.
func TestRunRunsIndependentStepsTogether(t *testing.T) {
	left, right := make(chan struct{}), make(chan struct{})
	meet := func(mine, theirs chan struct{}) func(context.Context) error {
		return func(ctx context.Context) error {
			close(mine)
			select {
			case <-theirs:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := Run(ctx, []Step{{Name: "left", Run: meet(left, right)}, {Name: "right", Run: meet(right, left)}}, nil)
	if err != nil {
		t.Errorf("got %v, want the steps to meet", err)
	}
}

func TestRunStopsAtTheFirstFailure(t *testing.T) {
	broken := errors.New("broken")
	steps := []Step{
		{Name: "waits", Run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
		{Name: "fails", Run: func(context.Context) error { return broken }},
		{Name: "never", After: []string{"fails"}, Run: func(context.Context) error {
			t.Error("a step ran after the one it needs had failed")
			return nil
		}},
	}
	err := Run(context.Background(), steps, nil)
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "fails: ") {
		t.Errorf("got %v, want the failure with the step's name", err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	steps := []Step{
		{Name: "cancels", Run: func(context.Context) error { cancel(); return nil }},
		{Name: "waits", Run: func(ctx context.Context) error { <-ctx.Done(); return nil }},
	}
	if err := Run(ctx, steps, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context canceled", err)
	}
}
