package supervisorapi

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
)

// gate bounds how many requests of a kind are at work.
type gate chan struct{}

func (g gate) enter() bool {
	select {
	case g <- struct{}{}:
		return true
	default:
		return false
	}
}

func (g gate) leave() { <-g }

// gates are apart from each other, so that strangers who read files and guess tokens take nothing from nodes, and
// never wait; and that machines which have proven their name, and all else, do not wait behind those that have not.
type gates struct {
	reads, writes, hashes *queue
	public, tokens        gate
}

func newGates(l Limits) gates {
	const tokens = 4
	return gates{
		reads:  newQueue(l.InFlight, l.Waiting, l.WaitingPerAddress),
		writes: newQueue(l.InFlightWrites, l.Waiting, l.WaitingPerAddress),
		hashes: newQueue(l.InFlightWrites, l.Waiting, l.WaitingPerAddress),
		public: make(gate, l.InFlight), tokens: make(gate, tokens),
	}
}

// of is where a request waits whose sender is known.
func (g gates) of(r *http.Request, found route) *queue {
	switch {
	case slices.Contains([]string{http.MethodGet, http.MethodHead}, r.Method):
		return g.reads
	case found.slow != nil && found.slow(r):
		return g.hashes
	}
	return g.writes
}

// begin lets a request be answered now, or in its turn. It has answered if it is not ok; leave ends the answer.
func (s *Server) begin(w http.ResponseWriter, r *http.Request, found route, from netip.Addr) (leave func(), ok bool) {
	switch {
	case found.long:
		return func() {}, true
	case found.groups != nil:
		return s.turn(w, r, s.gates.of(r, found), from)
	case s.gates.public.enter():
		return s.gates.public.leave, true
	}
	fail(w, http.StatusTooManyRequests, errFull.Error())
	return nil, false
}

type releaseKey struct{}

// withRelease lets a request give up its connection's share of the limits.
func withRelease(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn()
	}
	if l, ok := c.(*limitConn); ok {
		return context.WithValue(ctx, releaseKey{}, l.leave)
	}
	return ctx
}

// release takes the connection of a proven node or component out of the limits that are for strangers: a tunnel lives for
// months, and kube-apiserver has one connection here for each of its own to a kubelet. Who keeps them bounds them.
func release(r *http.Request) {
	if leave, ok := r.Context().Value(releaseKey{}).(func()); ok {
		leave()
	}
}
