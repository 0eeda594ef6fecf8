package loadbalancer

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestContract kills and revives each of three servers in turn: a connection to the dead one ends, the next request
// is answered, and once a server is back the others may go.
func TestContract(t *testing.T) {
	servers := []*backend{startBackend(t), startBackend(t), startBackend(t)}
	a, b, c := servers[0], servers[1], servers[2]
	lb, _ := start(t, Config{Default: a.address}, nil)
	lb.SetServers([]string{a.address, b.address, c.address})

	one := connect(t, lb)
	one.expect(t, a)
	a.kill()
	one.expectCut(t)
	two := connect(t, lb)
	two.expect(t, b)
	b.kill()
	two.expectCut(t)
	three := connect(t, lb)
	three.expect(t, c)
	a.revive()
	three.expect(t, c) // nothing is taken from a server that works
	c.kill()
	three.expectCut(t)
	four := connect(t, lb)
	four.expect(t, a) // failed servers are tried last, but they are
	b.revive()
	c.revive()
	a.kill()
	four.expectCut(t)
	connect(t, lb).expect(t, b)
}

func TestTunnelCutsAtOnce(t *testing.T) {
	a, b := startBackend(t), startBackend(t)
	lb, _ := start(t, Config{Default: a.address}, nil)
	lb.SetServers([]string{a.address, b.address})
	lb.Healthy(a.address, true)
	one := connect(t, lb)
	one.expect(t, a)
	await(t, lb, a.address+":ACTIVE", b.address+":UNCHECKED")
	lb.Healthy(b.address, true)
	lb.Healthy(a.address, false) // its sockets stay open, as those of a machine without power
	one.expectCut(t)
	connect(t, lb).expect(t, b)
	if got := lb.Servers()[0]; got.Address != b.address || got.State != Active || got.Connections != 1 {
		t.Errorf("got %+v, want the second server active with a connection", got)
	}
}

// TestProbe has an interval that never ends: what is asked is asked because of an event.
func TestProbe(t *testing.T) {
	a, b := startBackend(t), startBackend(t)
	var bad sync.Map
	var asked atomic.Int32
	lb, _ := start(t, Config{Default: a.address, ProbeInterval: time.Hour, Probe: func(_ context.Context, server string) error {
		asked.Add(1)
		if err, is := bad.Load(server); is {
			return err.(error)
		}
		return nil
	}}, nil)
	await(t, lb, a.address+":PREFERRED")
	one := connect(t, lb)
	one.expect(t, a)
	await(t, lb, a.address+":ACTIVE")
	bad.Store(b.address, ErrUnknown)
	before := asked.Load()
	lb.SetServers([]string{a.address, b.address})
	for asked.Load() == before {
		runtime.Gosched()
	}
	await(t, lb, a.address+":ACTIVE", b.address+":UNCHECKED")

	bad.Store(a.address, errors.New("not well"))
	lb.prober.kick(a.address)
	one.expectCut(t)
	connect(t, lb).expect(t, b)
	lb.SetServers([]string{b.address}) // the default stays, as a last resort
	await(t, lb, b.address+":RECOVERING", a.address+":STANDBY")
	lb.SetServers([]string{b.address, "127.0.0.1:1"})
	lb.SetServers([]string{b.address})
	await(t, lb, b.address+":RECOVERING", a.address+":STANDBY")
}

func TestProbeAtIntervals(t *testing.T) {
	a := startBackend(t)
	var sick atomic.Bool
	lb, _ := start(t, Config{Default: a.address, ProbeInterval: time.Millisecond, ProbeTimeout: time.Millisecond,
		Probe: func(ctx context.Context, _ string) error {
			if sick.Load() {
				<-ctx.Done() // a server without power does not answer
				return ctx.Err()
			}
			return nil
		}}, nil)
	one := connect(t, lb)
	one.expect(t, a)
	await(t, lb, a.address+":ACTIVE")
	sick.Store(true)
	one.expectCut(t)
	await(t, lb, a.address+":FAILED")
	sick.Store(false)
	await(t, lb, a.address+":PREFERRED")
}

func TestHoldsUntilAServerIsKnown(t *testing.T) {
	a := startBackend(t)
	lb, _ := start(t, Config{}, nil)
	held := connect(t, lb)
	io.WriteString(held, "early\n")
	lb.SetServers(nil)                     // ignored
	lb.SetServers([]string{"no port", ""}) // neither
	lb.SetServers([]string{a.address, a.address})
	got, err := held.lines.ReadString('\n')
	if want := "early from " + a.address + "\n"; err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if got := len(lb.Servers()); got != 1 {
		t.Errorf("%d servers, want 1", got)
	}
}

// TestHoldsWhileNoServerAnswers revives a server under many held clients: all get through, though only one of them
// dials at a time.
func TestHoldsWhileNoServerAnswers(t *testing.T) {
	a := startBackend(t)
	a.kill()
	lb, _ := start(t, Config{Default: a.address}, nil)
	var held []*client
	for range 50 {
		held = append(held, connect(t, lb))
	}
	await(t, lb, a.address+":FAILED")
	a.revive()
	for _, one := range held {
		one.expect(t, a)
	}
}

func TestHoldEnds(t *testing.T) {
	lb, _ := start(t, Config{Default: deadAddress(t), HoldTime: 20 * time.Millisecond}, nil)
	connect(t, lb).expectCut(t)
	lb, _ = start(t, Config{HoldTime: 20 * time.Millisecond}, nil)
	connect(t, lb).expectCut(t)
}

// TestSilentServer: the first server takes no connection and refuses none. Its turn is over after a while, and when
// another answers it is taken for dead.
func TestSilentServer(t *testing.T) {
	a := startBackend(t)
	const silent = "silent.test:1"
	lb, _ := start(t, Config{Default: silent}, func(b *Balancer) {
		b.patience = 10 * time.Millisecond
		real := b.dial
		b.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == silent {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return real(ctx, network, address)
		}
	})
	lb.SetServers([]string{silent, a.address})
	connect(t, lb).expect(t, a)
	await(t, lb, a.address+":RECOVERING", silent+":FAILED")
}

func TestKeepsHalfClosedConnections(t *testing.T) {
	a := startBackend(t)
	lb, _ := start(t, Config{Default: a.address}, nil)
	c := connect(t, lb)
	io.WriteString(c, "one\n")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if want := "one from " + a.address + "\nbye\n"; err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	await(t, lb, a.address+":RECOVERING")
	for lb.Servers()[0].Connections != 0 {
		runtime.Gosched()
	}
}

func TestRemovedServerIsCut(t *testing.T) {
	a, b := startBackend(t), startBackend(t)
	lb, _ := start(t, Config{Default: deadAddress(t)}, nil)
	lb.SetServers([]string{a.address})
	one := connect(t, lb)
	one.expect(t, a)
	lb.SetServers([]string{b.address})
	one.expectCut(t)
	connect(t, lb).expect(t, b)
}

func TestLimit(t *testing.T) {
	a := startBackend(t)
	lb, _ := start(t, Config{Default: a.address, MaxConnections: 2}, nil)
	one, two := connect(t, lb), connect(t, lb)
	one.expect(t, a)
	two.expect(t, a)
	connect(t, lb).expectCut(t)
	one.expect(t, a)
}

// TestRunEndsWhole: held, passing and probing, all of it ends with Run.
func TestRunEndsWhole(t *testing.T) {
	a := startBackend(t)
	before := runtime.NumGoroutine()
	lb, stop := start(t, Config{Default: a.address, Probe: func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	}}, nil)
	one := connect(t, lb)
	one.expect(t, a)
	<-a.taken
	held, stopHeld := start(t, Config{}, nil)
	two := connect(t, held)
	stop()
	stopHeld()
	one.expectCut(t)
	two.expectCut(t)
	if c, err := net.Dial("tcp", lb.Address()); err == nil {
		c.Close()
		t.Error("the listener is still open")
	}
	a.kill() // its own goroutines
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if got := runtime.NumGoroutine(); got > before {
		t.Errorf("%d goroutines, want at most %d", got, before)
	}
}

func TestIPv6(t *testing.T) {
	b, err := New(Config{Listen: "[::1]:0"})
	if err != nil {
		t.Skipf("this machine has no IPv6 loopback: %v", err)
	}
	b.listener.Close()
	a := startBackend(t)
	lb, _ := start(t, Config{Listen: "[::1]:0", Default: a.address}, nil)
	if !strings.HasPrefix(lb.Address(), "[::1]:") {
		t.Errorf("address %s", lb.Address())
	}
	connect(t, lb).expect(t, a)
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"every interface", Config{Listen: "0.0.0.0:0"}, "not a loopback address"},
		{"a name", Config{Listen: "localhost:0"}, "not a loopback address"},
		{"no port", Config{Listen: "127.0.0.1"}, "missing port"},
		{"default without port", Config{Listen: "127.0.0.1:0", Default: "a"}, "want host:port"},
		{"default with port 0", Config{Listen: "127.0.0.1:0", Default: "a:0"}, "1 to 65535"},
		{"default without host", Config{Listen: "127.0.0.1:0", Default: ":1"}, "no name and no IP address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestAddressTaken(t *testing.T) {
	a := startBackend(t)
	if _, err := New(Config{Listen: a.address}); err == nil {
		t.Error("no error")
	}
}

// TestStorm has clients ask while servers die, come back, leave the list and change health: every client that asks
// again is answered in the end, at most one server is active, and nothing hangs.
func TestStorm(t *testing.T) {
	servers := []*backend{startBackend(t), startBackend(t), startBackend(t)}
	var all []string
	for _, s := range servers {
		all = append(all, s.address)
	}
	lb, _ := start(t, Config{Default: all[0], ProbeInterval: time.Millisecond, Probe: func(ctx context.Context, server string) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", server)
		if err != nil {
			return err
		}
		return c.Close()
	}}, nil)
	go func() { // the probes fill the channels that nobody reads
		for {
			for _, s := range servers {
				select {
				case <-s.taken:
				case <-t.Context().Done():
					return
				}
			}
		}
	}()
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 40 {
				for tries := 0; ; tries++ {
					c := connect(t, lb)
					_, err := c.ask()
					c.Close()
					if err == nil {
						break
					}
					if tries == 200 {
						t.Error("a client was never answered")
						return
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	for running := true; running; {
		victim := servers[rand.N(len(servers))]
		victim.kill()
		lb.SetServers(all[:1+rand.N(len(all))])
		lb.Healthy(all[rand.N(len(all))], rand.N(2) == 0)
		active := 0
		for _, s := range lb.Servers() {
			if s.State == Active {
				active++
			}
		}
		if active > 1 {
			t.Errorf("active servers: %+v", lb.Servers())
		}
		victim.revive()
		select {
		case <-done:
			running = false
		default:
		}
	}
}
