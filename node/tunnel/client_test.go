package tunnel

import (
	"bytes"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestNewClient(t *testing.T) {
	conf := func() (*tls.Config, error) { return &tls.Config{}, nil }
	for _, c := range []struct {
		name   string
		config Config
		err    string
	}{
		{"good", Config{Server: "cp-1:9345", TLS: conf}, ""},
		{"no port", Config{Server: "cp-1", TLS: conf}, `server: address "cp-1": write host:port`},
		{"url", Config{Server: "https://cp-1:9345", TLS: conf}, "write host:port"},
		{"path", Config{Server: "cp-1/x:9345", TLS: conf}, "neither a name nor an address"},
		{"no tls", Config{Server: "cp-1:9345"}, "TLS must be set"},
	} {
		one, err := NewClient(c.config)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: NewClient = %v; want %q", c.name, err, c.err)
		}
		if err != nil {
			continue
		}
		if !one.config.Allow("tcp", "127.0.0.1:10250") || !one.config.Allow("tcp", "127.0.0.1:10010") || one.config.Allow("tcp", "127.0.0.1:2379") {
			t.Errorf("%s: Allow is not for the kubelet's ports alone", c.name)
		}
		if one.config.Silence != DefaultSilence || one.config.Retry <= 0 || one.config.Retry > time.Second || one.config.RetryMost < one.config.Retry {
			t.Errorf("%s: defaults are %+v", c.name, one.config)
		}
	}
}

func TestJitter(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 1000 {
		d := jitter(time.Second)
		if d < time.Second/2 || d > time.Second {
			t.Fatalf("jitter(1s) = %v; want between 0.5 s and 1 s", d)
		}
		seen[d] = true
	}
	if len(seen) < 100 {
		t.Errorf("%d different values of 1000", len(seen))
	}
	if d := jitter(1); d < 0 || d > 1 {
		t.Errorf("jitter(1ns) = %v", d)
	}
}

// lockedBuffer can be read while somebody logs into it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestNoTunnel: the first failure is a state; those after it are not told again, nor logged while they are the same.
func TestNoTunnel(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	var asked atomicCount
	refusing := a.serve("127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.add()
		http.Error(w, "forbidden\x1b[2J", http.StatusForbidden)
	}))
	good, _ := other.node("w1")()
	for _, c := range []struct {
		name, server string
		tls          func() (*tls.Config, error)
		log          string
	}{
		{"refused by the server", refusing.address, a.node("w1"), "server answers 403 Forbidden"},
		{"wrong CA", refusing.address, func() (*tls.Config, error) { return good, nil }, "certificate"},
		{"nobody there", "127.0.0.1:1", a.node("w1"), "connection refused"},
		{"no certificate", refusing.address, func() (*tls.Config, error) { return nil, errors.New("no such file") }, "certificate for the tunnel: no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &authority{t: t}
			log := &lockedBuffer{}
			tries := atomicCount{}
			states, stop := client(a.t, Config{Server: c.server, Log: slog.New(slog.NewTextHandler(log, nil)), TLS: func() (*tls.Config, error) {
				tries.add()
				return c.tls()
			}})
			want(t, states, false)
			eventually(t, "it is tried again and again", func() bool { return tries.get() >= 5 })
			stop()
			if len(states) != 0 {
				t.Errorf("%d more states", len(states))
			}
			text := log.String()
			if n := strings.Count(text, "tunnel is down"); n != 1 || !strings.Contains(text, c.log) {
				t.Errorf("log %q; want %q once", text, c.log)
			}
			if strings.Contains(text, "\x1b") {
				t.Errorf("log %q holds what a server made up", text)
			}
		})
	}
	if asked.get() == 0 {
		t.Error("the server was never asked")
	}
}

type atomicCount struct {
	mu sync.Mutex
	n  int
}

func (c *atomicCount) add() { c.mu.Lock(); c.n++; c.mu.Unlock() }

func (c *atomicCount) get() int { c.mu.Lock(); defer c.mu.Unlock(); return c.n }

// TestBackOff: waits double up to the bound, also when a server takes each tunnel and drops it at once.
func TestBackOff(t *testing.T) {
	a := newAuthority(t)
	var mu sync.Mutex
	var times []time.Time
	h := a.serve("127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		times = append(times, time.Now())
		mu.Unlock()
		s, _ := NewServer(ServerConfig{NodeOf: func(string) (string, bool) { return "", false }, Silence: time.Nanosecond})
		s.ServeNode(w, r, "w1")
	}))
	_, stop := client(t, Config{Server: h.address, TLS: a.node("w1"), Retry: 10 * time.Millisecond, RetryMost: 10 * time.Second})
	eventually(t, "six attempts", func() bool { mu.Lock(); defer mu.Unlock(); return len(times) >= 6 })
	stop()
	mu.Lock()
	defer mu.Unlock()
	for i := 1; i < 6; i++ { // between attempts i and i+1: 10 ms doubled i-1 times, of which at least half
		if d, least := times[i].Sub(times[i-1]), 5*time.Millisecond<<(i-1); d < least {
			t.Errorf("wait %d is %v; want at least %v", i, d, least)
		}
	}
}
