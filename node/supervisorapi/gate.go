package supervisorapi

import (
	"context"
	"net"
	"net/http"
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

// gates are apart from each other, so that strangers who read files and guess tokens take nothing from nodes.
type gates struct{ reads, writes, public, tokens gate }

func newGates(l Limits) gates {
	const tokens = 4
	return gates{make(gate, l.InFlight), make(gate, l.InFlightWrites), make(gate, l.InFlight), make(gate, tokens)}
}

// of is the gate of a request to a route.
func (g gates) of(found route, method string) gate {
	switch {
	case found.groups == nil:
		return g.public
	case slices.Contains([]string{http.MethodGet, http.MethodHead}, method):
		return g.reads
	}
	return g.writes
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
