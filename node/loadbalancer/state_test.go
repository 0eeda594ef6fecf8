package loadbalancer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var epoch = time.Unix(1_000_000, 0)

// with makes a machine from words such as "a:ACTIVE/3": address, state, connections. The first is the default.
func with(t testing.TB, words string) *machine {
	t.Helper()
	m := &machine{}
	for _, word := range strings.Fields(words) {
		address, rest, _ := strings.Cut(word, ":")
		name, count, _ := strings.Cut(rest, "/")
		s := &server{address: address, since: epoch}
		for s.state = Invalid; s.state.String() != name; s.state++ {
			if s.state > Active {
				t.Fatalf("%q: no such state", name)
			}
		}
		if count != "" {
			if _, err := fmt.Sscan(count, &s.connections); err != nil {
				t.Fatal(err)
			}
		}
		s.listed = s.state != Standby
		m.servers = append(m.servers, s)
	}
	if len(m.servers) > 0 {
		m.fallback = m.servers[0].address
	}
	return m
}

func words(m *machine) string {
	var all []string
	for _, s := range m.servers {
		word := s.address + ":" + s.state.String()
		if s.connections > 0 {
			word += fmt.Sprint("/", s.connections)
		}
		all = append(all, word)
	}
	return strings.Join(all, " ")
}

// TestTable is the table of transitions, a case for each row and each state that a row leaves alone.
func TestTable(t *testing.T) {
	const soon, later = time.Second, 61 * time.Second
	for _, c := range []struct {
		name   string
		before string
		kind   kind
		server string
		after  time.Duration
		want   string
		cut    string
	}{
		{"dial OK, failed", "a:FAILED", dialed, "a", soon, "a:RECOVERING/1", ""},
		{"dial OK, unchecked", "a:UNCHECKED", dialed, "a", soon, "a:RECOVERING/1", ""},
		{"dial OK, recovering", "a:RECOVERING/1", dialed, "a", soon, "a:RECOVERING/2", ""},
		{"dial OK, healthy", "a:HEALTHY", dialed, "a", soon, "a:ACTIVE/1", ""},
		{"dial OK, preferred", "a:PREFERRED", dialed, "a", soon, "a:ACTIVE/1", ""},
		{"dial OK, active", "a:ACTIVE/1", dialed, "a", soon, "a:ACTIVE/2", ""},
		{"dial OK, standby", "a:STANDBY", dialed, "a", soon, "a:STANDBY/1", ""},

		{"health OK, failed", "a:FAILED", healthy, "a", soon, "a:RECOVERING", ""},
		{"health OK, unchecked", "a:UNCHECKED", healthy, "a", soon, "a:RECOVERING", ""},
		{"health OK, recovering with connections", "a:RECOVERING/2", healthy, "a", soon, "a:ACTIVE/2", ""},
		{"health OK, recovering without", "a:RECOVERING", healthy, "a", soon, "a:PREFERRED", ""},
		{"health OK, preferred for long", "a:PREFERRED", healthy, "a", later, "a:HEALTHY", ""},
		{"health OK, preferred for a minute", "a:PREFERRED", healthy, "a", time.Minute, "a:PREFERRED", ""},
		{"health OK, healthy", "a:HEALTHY", healthy, "a", later, "a:HEALTHY", ""},
		{"health OK, active", "a:ACTIVE/1", healthy, "a", later, "a:ACTIVE/1", ""},
		{"health OK, standby", "a:STANDBY/1", healthy, "a", later, "a:STANDBY/1", ""},

		{"dial fail, unchecked", "a:UNCHECKED", dialFailed, "a", soon, "a:FAILED", ""},
		{"dial fail, recovering", "a:RECOVERING/2", dialFailed, "a", soon, "a:FAILED", "a"},
		{"dial fail, healthy", "a:HEALTHY", dialFailed, "a", soon, "a:FAILED", ""},
		{"dial fail, preferred", "a:PREFERRED", dialFailed, "a", soon, "a:FAILED", ""},
		{"dial fail, active", "a:ACTIVE/3", dialFailed, "a", soon, "a:FAILED", "a"},
		{"dial fail, failed", "a:FAILED", dialFailed, "a", soon, "a:FAILED", ""},
		{"dial fail, standby", "a:STANDBY/1", dialFailed, "a", soon, "a:STANDBY", "a"},

		{"health fail, unchecked", "a:UNCHECKED", unhealthy, "a", soon, "a:UNCHECKED", ""},
		{"health fail, recovering", "a:RECOVERING/1", unhealthy, "a", soon, "a:RECOVERING/1", ""},
		{"health fail, healthy", "a:HEALTHY", unhealthy, "a", soon, "a:FAILED", ""},
		{"health fail, preferred", "a:PREFERRED", unhealthy, "a", soon, "a:FAILED", ""},
		{"health fail, active", "a:ACTIVE/3", unhealthy, "a", soon, "a:FAILED", "a"},
		{"health fail, standby", "a:STANDBY/1", unhealthy, "a", soon, "a:STANDBY/1", ""},

		{"a new active ends what others have", "a:STANDBY/1 b:RECOVERING/2 c:RECOVERING/3 d:HEALTHY", healthy, "b", soon,
			"a:STANDBY b:ACTIVE/2 c:RECOVERING d:HEALTHY", "a c"},
		{"a new active with more connections", "a:ACTIVE/1 b:RECOVERING/2", healthy, "b", soon, "a:PREFERRED b:ACTIVE/2", "a"},
		{"a new active with as many", "a:ACTIVE/2 b:RECOVERING/2", healthy, "b", soon, "a:PREFERRED b:ACTIVE/2", "a"},
		{"the old active with more", "a:ACTIVE/3 b:RECOVERING/2 c:RECOVERING/1", healthy, "b", soon,
			"a:ACTIVE/3 b:PREFERRED c:RECOVERING/1", "b"},
		{"the old active with more, candidate preferred", "a:ACTIVE/3 b:PREFERRED", dialed, "b", soon, "a:ACTIVE/3 b:PREFERRED", "b"},

		{"an end", "a:ACTIVE/2", ended, "a", soon, "a:ACTIVE/1", ""},
		{"one end too many", "a:ACTIVE", ended, "a", soon, "a:ACTIVE", ""},
		{"a stranger", "a:ACTIVE/1", dialFailed, "z", soon, "a:ACTIVE/1", ""},
		{"tunnel up", "a:RECOVERING/1", up, "a", soon, "a:ACTIVE/1", ""},
		{"tunnel down", "a:ACTIVE/1", down, "a", soon, "a:FAILED", "a"},
		{"a tick without a tunnel", "a:RECOVERING/1", ticked, "", soon, "a:RECOVERING/1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := with(t, c.before)
			at := epoch.Add(c.after)
			out := m.apply(event{kind: c.kind, server: c.server, at: at, began: at})
			if got := words(m); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if got := strings.Join(out.cut, " "); got != c.cut {
				t.Errorf("cut %q, want %q", got, c.cut)
			}
		})
	}
}

func TestList(t *testing.T) {
	for _, c := range []struct{ name, before, list, want, cut string }{
		{"first of all", "", "a b", "a:UNCHECKED b:UNCHECKED", ""},
		{"empty", "a:ACTIVE/1", "", "a:ACTIVE/1", ""},
		{"one more", "a:ACTIVE/1", "a b", "a:ACTIVE/1 b:UNCHECKED", ""},
		{"named twice", "a:ACTIVE/1", "b a b", "b:UNCHECKED a:ACTIVE/1", ""},
		{"one less", "a:HEALTHY b:ACTIVE/2", "a", "a:HEALTHY", "b"},
		{"without the default", "a:ACTIVE/2 b:HEALTHY", "b", "b:HEALTHY a:STANDBY/2", ""},
		{"the default again", "a:STANDBY/1 b:ACTIVE/2", "a b", "a:UNCHECKED/1 b:ACTIVE/2", ""},
		{"still without the default", "a:STANDBY/1 b:ACTIVE/2", "c", "c:UNCHECKED a:STANDBY/1", "b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := with(t, c.before)
			out := m.apply(event{kind: listed, list: strings.Fields(c.list), at: epoch})
			if got := words(m); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if got := strings.Join(out.cut, " "); got != c.cut {
				t.Errorf("cut %q, want %q", got, c.cut)
			}
		})
	}
}

func TestTheFirstServerLearntBecomesTheDefault(t *testing.T) {
	m := newMachine("", epoch)
	m.apply(event{kind: listed, list: []string{"b", "c"}, at: epoch})
	m.apply(event{kind: listed, list: []string{"c"}, at: epoch})
	if got, want := words(m), "c:UNCHECKED b:STANDBY"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestOrder(t *testing.T) {
	m := with(t, "a:FAILED b:STANDBY c:UNCHECKED d:UNCHECKED e:RECOVERING/1 f:RECOVERING/2 g:HEALTHY h:PREFERRED i:ACTIVE")
	var got []string
	for _, s := range m.order() {
		got = append(got, s.address)
	}
	if want := "i h g f e c d b a"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestTunnelIsALevel: what a tunnel said once holds, so that a server whose dial failed while its tunnel stayed up
// comes back by itself, and one that comes up first becomes active with its first connection.
func TestTunnelIsALevel(t *testing.T) {
	m := with(t, "a:UNCHECKED b:UNCHECKED")
	for i, step := range []struct {
		e    event
		want string
	}{
		{event{kind: up, server: "a"}, "a:RECOVERING b:UNCHECKED"},
		{event{kind: ticked}, "a:PREFERRED b:UNCHECKED"},
		{event{kind: dialed, server: "a"}, "a:ACTIVE/1 b:UNCHECKED"},
		{event{kind: dialFailed, server: "a"}, "a:FAILED b:UNCHECKED"},
		{event{kind: dialed, server: "b"}, "a:FAILED b:RECOVERING/1"},
		{event{kind: ticked}, "a:RECOVERING b:RECOVERING/1"},
		{event{kind: up, server: "b"}, "a:RECOVERING b:ACTIVE/1"},
		{event{kind: ticked}, "a:PREFERRED b:ACTIVE/1"},
		{event{kind: down, server: "b"}, "a:PREFERRED b:FAILED"},
		{event{kind: down, server: "a"}, "a:FAILED b:FAILED"},
		{event{kind: ticked}, "a:FAILED b:FAILED"},
		// A probe's word is newer than the tunnel's, and the other way round.
		{event{kind: healthy, server: "a"}, "a:RECOVERING b:FAILED"},
		{event{kind: healthy, server: "a"}, "a:PREFERRED b:FAILED"},
		{event{kind: ticked}, "a:PREFERRED b:FAILED"},
		{event{kind: up, server: "a"}, "a:PREFERRED b:FAILED"},
		{event{kind: unhealthy, server: "a"}, "a:FAILED b:FAILED"},
		{event{kind: ticked}, "a:FAILED b:FAILED"},
		{event{kind: dialed, server: "a"}, "a:RECOVERING/1 b:FAILED"},
		{event{kind: up, server: "a"}, "a:ACTIVE/1 b:FAILED"},
	} {
		step.e.at = epoch.Add(time.Duration(i) * time.Second)
		step.e.began = step.e.at
		m.apply(step.e)
		if got := words(m); got != step.want {
			t.Fatalf("step %d: got %s, want %s", i, got, step.want)
		}
	}
}

// TestOldFailure: a dial that began before another succeeded says nothing about the server now, and must not end the
// connections it has.
func TestOldFailure(t *testing.T) {
	m := with(t, "a:FAILED")
	began := epoch
	m.apply(event{kind: dialed, server: "a", at: epoch.Add(time.Second)})
	m.apply(event{kind: dialFailed, server: "a", at: epoch.Add(2 * time.Second), began: began})
	if got, want := words(m), "a:RECOVERING/1"; got != want {
		t.Errorf("after an old failure: got %s, want %s", got, want)
	}
	m.apply(event{kind: dialFailed, server: "a", at: epoch.Add(2 * time.Second), began: epoch.Add(2 * time.Second)})
	if got, want := words(m), "a:FAILED"; got != want {
		t.Errorf("after a new failure: got %s, want %s", got, want)
	}
}

func TestStateString(t *testing.T) {
	if got := Active.String() + " " + State(8).String(); got != "ACTIVE ?" {
		t.Errorf("got %s", got)
	}
}

// FuzzMachine plays any sequence of events; each pair of bytes is one.
func FuzzMachine(f *testing.F) {
	f.Add([]byte{0, 7, 1, 0, 3, 0, 1, 1, 3, 1, 2, 0, 0, 6, 5, 0, 8, 200}, true)
	f.Add([]byte{0, 15, 5, 0, 5, 1, 1, 0, 1, 1, 6, 0, 0, 8, 7, 0}, false)
	f.Fuzz(func(t *testing.T, play []byte, known bool) {
		addresses := []string{"a", "b", "c", "d"}
		fallback := ""
		if known {
			fallback = "a"
		}
		m, at := newMachine(fallback, epoch), epoch
		for ; len(play) >= 2; play = play[2:] {
			at = at.Add(time.Duration(play[1]) * time.Second)
			e := event{kind: kind(play[0] % 9), server: addresses[play[1]%4], at: at}
			e.began = at.Add(-time.Duration(play[0]/9) * time.Second)
			if e.kind == listed {
				for i, address := range addresses {
					if play[1]>>i&1 == 1 {
						e.list = append(e.list, address)
					}
				}
				if play[1]&16 != 0 {
					e.list = append(e.list, e.list...)
				}
			}
			before := m.order()
			check(t, m, e, before, m.apply(e))
		}
	})
}

// check holds the invariants of the machine after one event.
func check(t *testing.T, m *machine, e event, before []server, out effects) {
	t.Helper()
	state := map[string]State{}
	for _, s := range before {
		state[s.address] = s.state
	}
	for _, one := range out.moves {
		if state[one.server] != one.from || one.from == one.to {
			t.Fatalf("%+v: move %+v, but the server was %s", e, one, state[one.server])
		}
		state[one.server] = one.to
	}
	active, seen := 0, map[string]bool{}
	for _, s := range m.servers {
		if state[s.address] != s.state {
			t.Fatalf("%+v: %s is %s, but its moves end at %s", e, s.address, s.state, state[s.address])
		}
		if seen[s.address] {
			t.Fatalf("%+v: %s is there twice", e, s.address)
		}
		seen[s.address] = true
		if s.state == Active {
			active++
		}
		if s.state == Invalid || s.state > Active {
			t.Fatalf("%+v: %s is %s", e, s.address, s.state)
		}
		if s.listed && s.state == Standby || !s.listed && s.address != m.fallback {
			t.Fatalf("%+v: %s is %s, listed %v, default %s", e, s.address, s.state, s.listed, m.fallback)
		}
		if s.connections < 0 || s.connections > 0 && slices.Contains([]State{Failed, Healthy, Preferred}, s.state) {
			t.Fatalf("%+v: %s is %s with %d connections", e, s.address, s.state, s.connections)
		}
		if s.connections > 0 && slices.Contains(out.cut, s.address) {
			t.Fatalf("%+v: %s was cut and has %d connections", e, s.address, s.connections)
		}
	}
	if active > 1 {
		t.Fatalf("%+v: %d active: %s", e, active, words(m))
	}
	if m.fallback != "" && !seen[m.fallback] {
		t.Fatalf("%+v: the default server %s is lost: %s", e, m.fallback, words(m))
	}
	for _, s := range before { // whoever lost connections other than by an end was cut
		now := m.find(s.address)
		lost := s.connections > 0 && (now == nil || now.connections == 0)
		if lost && e.kind != ended && !slices.Contains(out.cut, s.address) {
			t.Fatalf("%+v: %s lost %d connections that stay open", e, s.address, s.connections)
		}
	}
	if e.kind == listed {
		for _, address := range e.list {
			if !seen[address] {
				t.Fatalf("%+v: %s is listed and missing", e, address)
			}
		}
	}
	if order := m.order(); !slices.IsSortedFunc(order, func(a, b server) int { return int(b.state) - int(a.state) }) {
		t.Fatalf("%+v: order %v", e, order)
	}
}
