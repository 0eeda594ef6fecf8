package inorder

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
)

// count gives 0 to n-1.
func count(n int) func() (int, bool, error) {
	i := -1
	return func() (int, bool, error) { i++; return i, i < n, nil }
}

func square() (func(int) (int, error), error) {
	return func(i int) (int, error) {
		for range i % 7 {
			runtime.Gosched() // some take longer than others
		}
		return i * i, nil
	}, nil
}

func TestOrder(t *testing.T) {
	for _, n := range []int{0, 1, 2, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			at := 0
			err := Run(context.Background(), count(n), square, func(got int) error {
				if got != at*at {
					t.Errorf("result %d: got %d, want %d", at, got, at*at)
				}
				at++
				return nil
			})
			if err != nil || at != n {
				t.Errorf("Run: got %d results, %v, want %d", at, err, n)
			}
		})
	}
}

func TestErrorsEnd(t *testing.T) {
	bad := errors.New("bad")
	ignore := func(int) error { return nil }
	for _, c := range []struct {
		name   string
		next   func() (int, bool, error)
		worker func() (func(int) (int, error), error)
		emit   func(int) error
	}{
		{"next", func() (int, bool, error) { return 0, false, bad }, square, ignore},
		{"worker", count(100), func() (func(int) (int, error), error) { return nil, bad }, ignore},
		{"work", count(1000), func() (func(int) (int, error), error) {
			return func(i int) (int, error) {
				if i == 10 {
					return 0, bad
				}
				return i, nil
			}, nil
		}, ignore},
		{"emit", count(1000), square, func(i int) error {
			if i == 9 {
				return bad
			}
			return nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := Run(context.Background(), c.next, c.worker, c.emit); !errors.Is(err, bad) {
				t.Errorf("Run: got %v, want %v", err, bad)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var asked atomic.Int64
	next := func() (int, bool, error) { return int(asked.Add(1)), true, nil } // without end
	err := Run(ctx, next, square, func(i int) error {
		if i == 25 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Run: got %v, want %v", err, context.Canceled)
	}
	if n := asked.Load(); n > int64(100+10*runtime.GOMAXPROCS(0)) {
		t.Errorf("%d pieces were asked for, far ahead of what was taken", n)
	}
}
