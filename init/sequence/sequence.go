// Package sequence runs the boot's list of steps.
//
// The list is a literal in package main of init. A step begins when the steps
// it names in After are done, at once when it names none; so the list says in
// one place what waits for what, and what does not wait runs side by side. The
// package knows no step by name and touches nothing but the clock.
package sequence

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// Policy says what a failed step means.
type Policy int

// The policies.
const (
	Halt   Policy = iota // the boot cannot go on: say why and stay reachable
	Reboot               // trying again from the start may help
	GoOn                 // worth a line, not worth a machine
)

// Step is one named step of the boot.
type Step struct {
	Name   string
	After  []string
	Policy Policy
	Do     func(ctx context.Context) error
}

// Failure is the error of Run: the step that ended the boot.
type Failure struct {
	Step   string
	Policy Policy
	Err    error
}

func (f *Failure) Error() string { return f.Step + ": " + f.Err.Error() }

// Unwrap gives the cause.
func (f *Failure) Unwrap() error { return f.Err }

// Panic is the error of a step that panicked.
type Panic struct {
	Value any
	Stack []byte
}

func (p *Panic) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// Observer is told when a step has ended.
type Observer func(step string, start time.Time, took time.Duration, err error)

// Check says whether a list makes sense: names are unique and a step waits for
// earlier ones only, so that there is no circle.
func Check(steps []Step) error {
	seen := map[string]bool{}
	for _, s := range steps {
		for _, a := range s.After {
			if !seen[a] {
				return fmt.Errorf("step %q waits for %q, which is not before it in the list", s.Name, a)
			}
		}
		if s.Name == "" || seen[s.Name] || s.Do == nil {
			return fmt.Errorf("step %q: without a name or a function, or there twice", s.Name)
		}
		seen[s.Name] = true
	}
	return nil
}

// Run runs all steps. The first failure whose policy is not GoOn ends it: the
// context of the steps that run is cancelled, and the rest is not begun.
func Run(ctx context.Context, steps []Step, observe Observer) error {
	if err := Check(steps); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		failure *Failure
		done    = map[string]chan struct{}{}
	)
	for _, s := range steps {
		done[s.Name] = make(chan struct{})
	}
	for _, s := range steps {
		wg.Go(func() {
			// Closed on failure as well: whoever waits sees the cancelled
			// context first.
			defer close(done[s.Name])
			for _, a := range s.After {
				<-done[a]
			}
			if ctx.Err() != nil {
				return
			}
			start := time.Now()
			err := guard(ctx, s.Do)
			mu.Lock()
			defer mu.Unlock()
			if failure != nil && err != nil {
				return // it was cancelled: the first failure counts
			}
			observe(s.Name, start, time.Since(start), err)
			if err == nil || s.Policy == GoOn {
				return
			}
			failure = &Failure{Step: s.Name, Policy: s.Policy, Err: err}
			cancel()
		})
	}
	wg.Wait()
	if failure != nil {
		return failure
	}
	return ctx.Err()
}

// guard turns a panic into an error: nothing may take PID 1 down.
func guard(ctx context.Context, do func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &Panic{Value: v, Stack: debug.Stack()}
		}
	}()
	return do(ctx)
}
