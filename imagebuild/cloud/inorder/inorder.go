// Package inorder runs work on all processors and hands on its results in the
// order of the input, so that what is written does not depend on how many
// processors there are. It holds no more than a few pieces at a time. The
// writers of image formats compress with it.
package inorder

import (
	"context"
	"runtime"
	"sync"
)

// most workers at a time: memory is bounded whatever the machine.
const most = 8

// result is what became of one piece.
type result[Out any] struct {
	out Out
	err error
}

// Run asks next for pieces until it says false, gives each to one of the
// workers that worker makes, and emit gets the results in the order of next.
// next and emit are each called by one goroutine alone. The first error ends
// it.
func Run[In, Out any](ctx context.Context, next func() (In, bool, error), worker func() (func(In) (Out, error), error), emit func(Out) error) error {
	type job struct {
		in   In
		done chan result[Out]
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	workers := min(runtime.GOMAXPROCS(0), most)
	jobs := make(chan job)
	order := make(chan chan result[Out], workers)
	for range workers {
		work, err := worker()
		if err != nil {
			return err
		}
		all.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case j, ok := <-jobs:
					if !ok {
						return
					}
					out, err := work(j.in)
					j.done <- result[Out]{out, err}
				}
			}
		})
	}
	all.Go(func() {
		defer close(order)
		defer close(jobs)
		for {
			in, ok, err := next()
			if !ok && err == nil {
				return
			}
			j := job{in, make(chan result[Out], 1)}
			if err != nil {
				j.done <- result[Out]{err: err}
			}
			select {
			case order <- j.done:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
			select {
			case jobs <- j:
			case <-ctx.Done():
				return
			}
		}
	})
	for done := range order {
		select {
		case r := <-done:
			if r.err != nil {
				return r.err
			}
			if err := emit(r.out); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}
