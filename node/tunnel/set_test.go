package tunnel

import (
	"maps"
	"strings"
	"testing"
	"time"
)

type told struct {
	server string
	up     bool
}

func TestSet(t *testing.T) {
	a := newAuthority(t)
	servers := make([]*Server, 3)
	hosts := make([]*host, 3)
	for i := range servers {
		servers[i] = server(t, ServerConfig{})
		hosts[i] = a.serve("127.0.0.1:0", supervisor(servers[i]))
	}
	one, two, three := hosts[0].address, hosts[1].address, hosts[2].address
	states := make(chan told, 100)
	set, err := NewSet(SetConfig{TLS: a.node("w1"), Retry: time.Millisecond, RetryMost: 10 * time.Millisecond,
		OnState: func(server string, up bool) { states <- told{server, up} }})
	if err != nil {
		t.Fatal(err)
	}
	if err := set.SetServers([]string{one, one}); err != nil { // before Run, and twice the same
		t.Fatal(err)
	}
	stop := start(t, set.Run)
	want(t, states, told{one, true})
	eventually(t, "one has the tunnel", func() bool { return servers[0].Has("w1") })

	if err := set.SetServers([]string{two, one}); err != nil {
		t.Fatal(err)
	}
	want(t, states, told{two, true})
	eventually(t, "two has the tunnel", func() bool { return servers[1].Has("w1") })
	if got, want := set.States(), map[string]bool{one: true, two: true}; !maps.Equal(got, want) {
		t.Errorf("States = %v; want %v", got, want)
	}

	// A server that leaves the list loses its tunnel, without a word; one that stays keeps its own.
	servers[1].mu.Lock()
	kept := servers[1].nodes["w1"]
	servers[1].mu.Unlock()
	if err := set.SetServers([]string{two, three}); err != nil {
		t.Fatal(err)
	}
	want(t, states, told{three, true})
	eventually(t, "one has no tunnel", func() bool { return !servers[0].Has("w1") })
	servers[1].mu.Lock()
	if now := servers[1].nodes["w1"]; len(kept) != 1 || len(now) != 1 || now[0] != kept[0] {
		t.Error("the tunnel of a server that stays was opened anew")
	}
	servers[1].mu.Unlock()

	hosts[2].kill()
	want(t, states, told{three, false})
	if got, want := set.States(), map[string]bool{two: true, three: false}; !maps.Equal(got, want) {
		t.Errorf("States = %v; want %v", got, want)
	}
	a.serve(three, supervisor(servers[2]))
	want(t, states, told{three, true})

	err = set.SetServers([]string{one, "no port"})
	if err == nil || !strings.Contains(err.Error(), `"no port"`) {
		t.Errorf("SetServers = %v; want an error that names the address", err)
	}
	if len(set.States()) != 2 {
		t.Error("a list that was refused changed the states")
	}
	stop()
	for i, s := range servers {
		eventually(t, "no tunnel is left", func() bool { return !s.Has("w1") })
		if i == 0 && len(states) != 0 {
			t.Errorf("told of %v at the end", <-states)
		}
	}
}

func TestEmptySet(t *testing.T) {
	if _, err := NewSet(SetConfig{}); err == nil {
		t.Error("NewSet without TLS works")
	}
	a := newAuthority(t)
	s := server(t, ServerConfig{})
	h := a.serve("127.0.0.1:0", supervisor(s))
	set, err := NewSet(SetConfig{TLS: a.node("w1")})
	if err != nil {
		t.Fatal(err)
	}
	stop := start(t, set.Run)
	if err := set.SetServers([]string{h.address}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "tunnel", func() bool { return s.Has("w1") })
	if err := set.SetServers(nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no tunnel", func() bool { return !s.Has("w1") })
	if got := set.States(); len(got) != 0 {
		t.Errorf("States = %v; want none", got)
	}
	stop()
}
