package loadbalancer

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"
)

// link is one client's connection and its other half.
type link struct {
	server           string
	client, upstream net.Conn
}

func (l *link) close() {
	l.client.Close()
	l.upstream.Close()
}

// owner is the only holder of the machine and of the table of links: whatever is known of a server is read and
// changed under its lock, and nothing but memory is touched there, so that it cannot be waited for in a circle.
type owner struct {
	log     *slog.Logger
	mu      sync.Mutex
	machine *machine
	links   map[*link]bool
	better  chan struct{} // closed and replaced when a dial that did not succeed may be worth another try
}

func newOwner(fallback string, log *slog.Logger) *owner {
	return &owner{log: log, machine: newMachine(fallback, time.Now()), links: map[*link]bool{}, better: make(chan struct{})}
}

// servers is a copy of the state, in the order of dialling, and a channel that closes when it becomes better.
func (o *owner) servers() ([]server, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.machine.order(), o.better
}

// remembered is what the state file holds.
func (o *owner) remembered() (fallback string, list []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.machine.servers {
		if s.listed {
			list = append(list, s.address)
		}
	}
	return o.machine.fallback, list
}

// tell lets an event happen and gives the moves it made.
func (o *owner) tell(e event) []move {
	o.mu.Lock()
	out, cut := o.apply(e)
	o.mu.Unlock()
	o.finish(out, cut)
	return out.moves
}

// open enters a new link. It is not kept when the server was removed while it was dialled, or lost to another.
func (o *owner) open(l *link) (moves []move, kept bool) {
	o.mu.Lock()
	var out effects
	var cut []*link
	if o.machine.find(l.server) != nil {
		o.links[l] = true
		out, cut = o.apply(event{kind: dialed, server: l.server})
	}
	kept = o.links[l]
	o.mu.Unlock()
	for i, one := range cut {
		if one == l { // its client goes on elsewhere
			cut = append(cut[:i], cut[i+1:]...)
			break
		}
	}
	if !kept {
		l.upstream.Close()
	}
	o.finish(out, cut)
	return out.moves, kept
}

// end takes a link out that ended by itself.
func (o *owner) end(l *link) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.links[l] {
		delete(o.links, l)
		o.machine.apply(event{kind: ended, server: l.server})
	}
}

// apply runs under the lock. Links that are to be cut leave the table in the same instant.
func (o *owner) apply(e event) (out effects, cut []*link) {
	e.at = time.Now()
	out = o.machine.apply(e)
	for _, address := range out.cut {
		for l := range o.links {
			if l.server == address {
				delete(o.links, l)
				cut = append(cut, l)
			}
		}
	}
	for _, m := range out.moves {
		if m.to != Failed {
			close(o.better)
			o.better = make(chan struct{})
			break
		}
	}
	return out, cut
}

func (o *owner) finish(out effects, cut []*link) {
	for _, l := range cut {
		l.close()
	}
	for _, m := range out.moves {
		level := slog.LevelInfo
		if m.to == Failed {
			level = slog.LevelWarn
		}
		o.log.Log(context.Background(), level, "server", "address", m.server, "was", m.from.String(), "is", m.to.String())
	}
	if len(cut) > 0 {
		o.log.Info("connections cut", "servers", out.cut, "connections", len(cut))
	}
}
