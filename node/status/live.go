package status

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"keelson/node/loadbalancer"
	"keelson/node/sequence"
)

// Live collects what only the running supervisor knows. The zero value is ready.
type Live struct {
	mu      sync.Mutex // guards what follows
	started time.Time
	done    bool
	waiting map[string]*Wait
	parts   []func(context.Context, *Report)
}

// Add has part fill its share into every report from now on. It may be called at any time, from any step: part holds
// what the step has made, so that no field of the supervisor is read beside the step that writes it. It has the context's
// time to answer.
func (l *Live) Add(part func(context.Context, *Report)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts = append(l.parts, part)
}

// reasonKey finds the note of the step that a context belongs to.
type reasonKey struct{}

type note struct {
	live *Live
	wait *Wait
}

// Follow tells of a start from its first step on: when it began, and which of its steps it waits for.
func (l *Live) Follow(steps []sequence.Step, now time.Time) {
	l.begin(now.UTC().Truncate(time.Second))
	for i := range steps {
		steps[i].Run = l.step(steps[i].Name, steps[i].Run)
	}
}

// step wraps a step of the start: while it runs it is what is waited for.
func (l *Live) step(name string, run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		w := &Wait{For: name, Since: time.Now()}
		l.mu.Lock()
		if l.waiting == nil {
			l.waiting = map[string]*Wait{}
		}
		l.waiting[name] = w
		l.mu.Unlock()
		err := run(context.WithValue(ctx, reasonKey{}, note{l, w}))
		if err == nil { // what failed ends the supervisor, and is what it waited for last
			l.mu.Lock()
			delete(l.waiting, name)
			l.mu.Unlock()
		}
		return err
	}
}

// Reason notes why the step that ctx belongs to waits. Outside of steps it does nothing.
func Reason(ctx context.Context, err error) {
	n, ok := ctx.Value(reasonKey{}).(note)
	if !ok || err == nil {
		return
	}
	n.live.mu.Lock()
	defer n.live.mu.Unlock()
	n.wait.Reason = err.Error()
}

func (l *Live) begin(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.started = now
}

// Done notes that every step has ended.
func (l *Live) Done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = true
}

// Fill puts into r what is known.
func (l *Live) Fill(ctx context.Context, r *Report) {
	l.mu.Lock()
	r.State, r.Started = Starting, l.started
	if l.done {
		r.State = Up
	}
	for _, w := range l.waiting {
		r.Waiting = append(r.Waiting, *w)
	}
	parts := slices.Clone(l.parts)
	l.mu.Unlock()
	slices.SortFunc(r.Waiting, func(a, b Wait) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.For, b.For)) })
	for _, part := range parts {
		part(ctx, r)
	}
}

// BalancerOf shows a load balancer.
func BalancerOf(name string, b *loadbalancer.Balancer) Balancer {
	out := Balancer{Name: name, Address: b.Address()}
	for _, s := range b.Servers() {
		out.Servers = append(out.Servers, Backend{Address: s.Address, State: s.State.String(), Connections: s.Connections})
	}
	return out
}
