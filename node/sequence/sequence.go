// Package sequence runs a list of named steps, each as soon as the steps that it names have ended. The list is plain
// data, kept in one place by whoever starts something (node/server); this package adds nothing to it and retries
// nothing. A step that fails ends the whole sequence.
package sequence

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Step is one piece of a start-up.
type Step struct {
	Name  string
	After []string // names of earlier steps that must have ended
	Skip  bool     // does nothing here; steps after it still come after those that it names
	Run   func(context.Context) error
}

// Done is called at the end of each step, from many goroutines.
type Done func(name string, took time.Duration, err error)

// Check refuses a list that cannot run: a name twice, or an After that is not earlier in the list. As every After
// points backwards, no list that passes can wait on itself.
func Check(steps []Step) error {
	var seen []string
	for _, s := range steps {
		if s.Name == "" || s.Run == nil {
			return fmt.Errorf("step %q: name and function are needed", s.Name)
		}
		if slices.Contains(seen, s.Name) {
			return fmt.Errorf("step %q: listed twice", s.Name)
		}
		for _, name := range s.After {
			if !slices.Contains(seen, name) {
				return fmt.Errorf("step %q: runs after %q, which is not listed before it", s.Name, name)
			}
		}
		seen = append(seen, s.Name)
	}
	return nil
}

// Run runs the steps and returns when all have ended. The first failure cancels the context of the others, and is what
// Run returns; steps that were still waiting then never begin.
func Run(ctx context.Context, steps []Step, done Done) error {
	if err := Check(steps); err != nil {
		return fmt.Errorf("check steps: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(map[string]chan struct{}, len(steps))
	for _, s := range steps {
		ended[s.Name] = make(chan struct{})
	}
	var group sync.WaitGroup
	for _, s := range steps {
		group.Go(func() {
			for _, name := range s.After {
				select {
				case <-ended[name]:
				case <-ctx.Done():
					return
				}
			}
			if ctx.Err() != nil {
				return
			}
			if s.Skip {
				close(ended[s.Name])
				return
			}
			began := time.Now()
			err := s.Run(ctx)
			if done != nil {
				done(s.Name, time.Since(began), err)
			}
			if err != nil {
				cancel(fmt.Errorf("%s: %w", s.Name, err))
				return
			}
			close(ended[s.Name])
		})
	}
	group.Wait()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return ctx.Err()
}
