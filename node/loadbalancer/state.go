package loadbalancer

import (
	"cmp"
	"slices"
	"time"
)

// State is how much a server is liked: the higher, the earlier it is dialled. Names and values are those of k3s
// pkg/agent/loadbalancer/servers.go.
type State uint8

// The states of a server.
const (
	Invalid    State = iota // removed; no server of the list ever is
	Failed                  // did not answer; tried last
	Standby                 // the default server while it is not in the list
	Unchecked               // new
	Recovering              // answered once
	Healthy                 // answers, no connections
	Preferred               // answers, and the next to be dialled
	Active                  // has the connections; at most one server is
)

// String is the state's name as RKE2 writes it.
func (s State) String() string {
	names := [...]string{"INVALID", "FAILED", "STANDBY", "UNCHECKED", "RECOVERING", "HEALTHY", "PREFERRED", "ACTIVE"}
	if int(s) < len(names) {
		return names[s]
	}
	return "?"
}

// preferredTime is how long a server stays preferred without being dialled.
const preferredTime = time.Minute

// kind is what happened.
type kind uint8

const (
	listed     kind = iota // the cluster's servers are event.list
	dialed                 // a connection to the server was opened
	dialFailed             // the server did not take a connection
	healthy                // one good answer to a probe
	unhealthy              // one bad or missing answer
	up                     // the server's tunnel is up, until it is down
	down                   // the server's tunnel is down, until it is up
	ended                  // a connection ended by itself
	ticked                 // a second went by
)

// event is what the machine is told.
type event struct {
	kind   kind
	server string
	list   []string
	at     time.Time
	began  time.Time // of dialFailed: when the dial began
}

// move is a server's way from one state to another.
type move struct {
	server   string
	from, to State
}

// effects is what the machine wants done.
type effects struct {
	cut   []string // servers whose connections are to be closed now
	moves []move
}

// server is one row of the machine's list.
type server struct {
	address     string
	state       State
	listed      bool // part of the cluster's list; the default server need not be
	connections int
	level       kind // up or down while a tunnel had the last word, else listed
	since       time.Time
	reached     time.Time // the last good dial
}

// machine is the state of every server. It is pure: events in, effects out, no clock, no locks, no sockets.
type machine struct {
	fallback string // the default server; kept whatever the list says
	servers  []*server
}

// newMachine knows the default server, when there is one.
func newMachine(fallback string, at time.Time) *machine {
	m := &machine{fallback: fallback}
	if fallback != "" {
		m.servers = []*server{{address: fallback, state: Unchecked, since: at}}
	}
	return m
}

// order is the servers as they are to be dialled: by state, then by connections, both falling, then as listed.
func (m *machine) order() []server {
	all := make([]server, 0, len(m.servers))
	for _, s := range m.servers {
		all = append(all, *s)
	}
	slices.SortStableFunc(all, func(a, b server) int {
		return cmp.Or(cmp.Compare(b.state, a.state), cmp.Compare(b.connections, a.connections))
	})
	return all
}

func (m *machine) find(address string) *server {
	for _, s := range m.servers {
		if s.address == address {
			return s
		}
	}
	return nil
}

// apply lets one event happen.
func (m *machine) apply(e event) (out effects) {
	switch e.kind {
	case listed:
		m.list(e, &out)
		return out
	case ticked:
		for _, s := range m.servers {
			m.level(s, e.at, &out)
		}
		return out
	}
	s := m.find(e.server)
	if s == nil {
		return out
	}
	switch e.kind {
	case dialed:
		s.connections++
		s.reached = e.at
		m.success(s, true, e.at, &out)
		if s.level == up {
			m.success(s, false, e.at, &out)
		}
	case dialFailed:
		if e.began.Before(s.reached) {
			break // another connection was opened meanwhile: this failure is old news
		}
		m.failure(s, true, e.at, &out)
	case healthy: // the last word counts: a probe's answer ends what the tunnel said
		s.level = listed
		m.success(s, false, e.at, &out)
	case unhealthy:
		s.level = listed
		m.failure(s, false, e.at, &out)
	case up, down:
		s.level = e.kind
		m.level(s, e.at, &out)
	case ended:
		s.connections = max(0, s.connections-1)
	}
	return out
}

// level repeats what the tunnel last said.
func (m *machine) level(s *server, at time.Time, out *effects) {
	switch s.level {
	case up:
		m.success(s, false, at, out)
	case down:
		m.failure(s, false, at, out)
	}
}

// success is a dial or a health check that went well.
func (m *machine) success(s *server, dial bool, at time.Time, out *effects) {
	switch s.state {
	case Failed, Unchecked:
		s.move(Recovering, at, out)
	case Recovering:
		switch {
		case dial:
		case s.connections > 0:
			m.activate(s, at, out)
		default:
			s.move(Preferred, at, out)
		}
	case Healthy:
		if dial {
			m.activate(s, at, out)
		}
	case Preferred:
		if dial {
			m.activate(s, at, out)
		} else if at.Sub(s.since) > preferredTime {
			s.move(Healthy, at, out)
		}
	}
}

// failure is a dial or a health check that went badly. Before a server was healthy a bad check says nothing: its
// tunnel may be opened later than its first connection.
func (m *machine) failure(s *server, dial bool, at time.Time, out *effects) {
	switch s.state {
	case Unchecked, Recovering:
		if !dial {
			return
		}
		s.move(Failed, at, out)
	case Healthy, Preferred, Active:
		s.move(Failed, at, out)
	case Standby:
		if !dial {
			return
		}
	}
	s.cut(out)
}

// activate makes s the one active server, unless another has more connections. The connections of all others end:
// a client with half its connections elsewhere would see the cluster from two sides.
func (m *machine) activate(s *server, at time.Time, out *effects) {
	for _, other := range m.servers {
		if other != s && other.state == Active && other.connections > s.connections {
			s.move(Preferred, at, out)
			s.cut(out)
			return
		}
	}
	for _, other := range m.servers {
		if other == s {
			continue
		}
		if other.state == Active {
			other.move(Preferred, at, out)
		}
		other.cut(out)
	}
	s.move(Active, at, out)
}

// list takes over the cluster's list. An empty one is ignored: it comes from a server that knows none yet.
func (m *machine) list(e event, out *effects) {
	if len(e.list) == 0 {
		return
	}
	if m.fallback == "" {
		m.fallback = e.list[0]
	}
	var next []*server
	for _, address := range e.list {
		if slices.ContainsFunc(next, func(s *server) bool { return s.address == address }) {
			continue
		}
		s := m.find(address)
		switch {
		case s == nil:
			s = &server{address: address}
			s.move(Unchecked, e.at, out)
		case s.state == Standby:
			s.move(Unchecked, e.at, out)
		}
		s.listed = true
		next = append(next, s)
	}
	for _, s := range m.servers {
		if slices.Contains(next, s) {
			continue
		}
		s.listed = false
		if s.address == m.fallback {
			// Its connections stay until another server is active.
			s.move(Standby, e.at, out)
			next = append(next, s)
			continue
		}
		s.move(Invalid, e.at, out)
		s.cut(out)
	}
	m.servers = next
}

func (s *server) move(to State, at time.Time, out *effects) {
	if s.state == to {
		return
	}
	out.moves = append(out.moves, move{s.address, s.state, to})
	s.state, s.since = to, at
}

func (s *server) cut(out *effects) {
	if s.connections > 0 {
		s.connections = 0
		out.cut = append(out.cut, s.address)
	}
}
