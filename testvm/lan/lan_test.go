package lan

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// guest stands for QEMU's end of a cable.
type guest struct {
	t    *testing.T
	n    byte
	conn *net.UnixConn
	peer *net.UnixAddr
}

// network is a switch that runs, with guests plugged in.
func network(t *testing.T, names ...string) (*Switch, map[string]*guest, *atomic.Int64) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lan") // t.TempDir holds the test's name, which may be long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	seen := new(atomic.Int64)
	s, err := New(Config{Dir: dir, Seen: func(string, []byte) { seen.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	guests := map[string]*guest{}
	for i, name := range names {
		p, err := s.Plug(name)
		if err != nil {
			t.Fatal(err)
		}
		guests[name] = plug(t, p, byte(i+1))
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s, guests, seen
}

// plug follows what Netdev tells QEMU.
func plug(t *testing.T, p *Port, n byte) *guest {
	t.Helper()
	options := map[string]string{}
	for _, o := range strings.Split(p.Netdev("x"), ",") {
		key, value, _ := strings.Cut(o, "=")
		options[key] = value
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: options["local.path"], Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &guest{t, n, conn, &net.UnixAddr{Name: options["remote.path"], Net: "unixgram"}}
}

func address(n byte) []byte {
	mac, _ := net.ParseMAC(MAC(n))
	return mac
}

// send writes a frame to the guest with that number; 0xff is everybody.
func (g *guest) send(to byte, text string) {
	g.t.Helper()
	receiver := address(to)
	if to == 0xff {
		receiver = bytes.Repeat([]byte{0xff}, 6)
	}
	frame := append(append(append([]byte{}, receiver...), address(g.n)...), 0x08, 0x00)
	if _, err := g.conn.WriteToUnix(append(frame, text...), g.peer); err != nil {
		g.t.Fatal(err)
	}
}

// got reads the next frame's text; "" when none comes before the patience ends.
func (g *guest) got(patience time.Duration) string {
	g.t.Helper()
	g.conn.SetReadDeadline(time.Now().Add(patience))
	buffer := make([]byte, maxFrame)
	n, err := g.conn.Read(buffer)
	if err != nil {
		return ""
	}
	return string(buffer[14:n])
}

const (
	patience = 10 * time.Second      // for what must come
	moment   = 30 * time.Millisecond // for what must not
)

func (g *guest) expect(want string) {
	g.t.Helper()
	if got := g.got(patience); got != want {
		g.t.Errorf("guest %d: got %q, want %q", g.n, got, want)
	}
}

func (g *guest) silent() {
	g.t.Helper()
	if got := g.got(moment); got != "" {
		g.t.Errorf("guest %d: got %q, want nothing", g.n, got)
	}
}

func TestSwitchLearns(t *testing.T) {
	_, g, seen := network(t, "a", "b", "c")
	g["a"].send(2, "first") // b is not known yet: everybody hears it
	g["b"].expect("first")
	g["c"].expect("first")
	g["a"].silent()
	g["b"].send(1, "answer") // a has spoken: nobody else hears it
	g["a"].expect("answer")
	g["c"].silent()
	g["b"].send(0xff, "all")
	g["a"].expect("all")
	g["c"].expect("all")
	if got := seen.Load(); got != 3 {
		t.Errorf("seen: got %d frames, want 3", got)
	}
}

func TestFaults(t *testing.T) {
	s, g, _ := network(t, "a", "b", "c")
	set := func(name string, f Fault) {
		t.Helper()
		if err := s.Set(name, f); err != nil {
			t.Fatal(err)
		}
	}
	set("b", Fault{Cut: true})
	g["a"].send(0xff, "x")
	g["c"].expect("x")
	g["b"].silent()
	g["b"].send(0xff, "y")
	g["a"].silent()
	set("b", Fault{Loss: 1})
	g["a"].send(2, "lost")
	g["b"].silent()
	g["b"].send(1, "only one way") // loss is on the way to the machine
	g["a"].expect("only one way")
	set("b", Fault{Delay: 50 * time.Millisecond})
	began := time.Now()
	g["a"].send(2, "one")
	g["a"].send(2, "two")
	g["b"].expect("one")
	g["b"].expect("two")
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("the frames were there after %v, want 50 ms at least", took)
	}
	set("b", Fault{})
	g["a"].send(2, "mended")
	g["b"].expect("mended")
	if err := s.Set("nobody", Fault{}); err == nil {
		t.Error("a port that is not there took a fault")
	}
}

func TestSplit(t *testing.T) {
	s, g, _ := network(t, "a", "b", "c", "d")
	if err := s.Split([]string{"a", "b"}, []string{"c"}); err != nil {
		t.Fatal(err)
	}
	g["a"].send(0xff, "half")
	g["b"].expect("half")
	for _, name := range []string{"c", "d"} {
		g[name].silent()
	}
	g["d"].send(0xff, "alone")
	g["c"].silent()
	if err := s.Split(); err != nil {
		t.Fatal(err)
	}
	g["a"].send(0xff, "whole")
	for _, name := range []string{"b", "c", "d"} {
		g[name].expect("whole")
	}
	if err := s.Split([]string{"nobody"}); err == nil {
		t.Error("a port that is not there was split off")
	}
}

// A machine that is killed leaves its socket, and comes back on the same path.
func TestMachineComesBack(t *testing.T) {
	s, g, _ := network(t, "a", "b")
	g["b"].conn.Close()
	g["a"].send(2, "to nobody")
	path := filepath.Join(s.cfg.Dir, "b.vm")
	os.Remove(path) // as QEMU does before it binds
	again := plug(t, s.ports["b"], 2)
	again.send(1, "back")
	g["a"].expect("back")
	g["a"].send(2, "welcome")
	got := again.got(patience)
	if got == "to nobody" { // it was still on its way
		got = again.got(patience)
	}
	if got != "welcome" {
		t.Errorf("got %q, want the frame after the return", got)
	}
}

func TestPlugErrors(t *testing.T) {
	s, err := New(Config{Dir: filepath.Join(t.TempDir(), "sw")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Plug("a"); err != nil && !strings.Contains(err.Error(), "longer than") {
		t.Fatal(err)
	}
	long, err := New(Config{Dir: filepath.Join(t.TempDir(), strings.Repeat("x", 100))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := long.Plug("a"); err == nil || !strings.Contains(err.Error(), "shorter folder") {
		t.Errorf("long path: got %v", err)
	}
	if _, err := New(Config{Dir: "/dev/null/x"}); err == nil {
		t.Error("a switch without a folder")
	}
}

func TestPortTakenOnce(t *testing.T) {
	s, _, _ := network(t, "a")
	if _, err := s.Plug("a"); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("got %v", err)
	}
	if got := MAC(10); got != "52:54:00:4b:45:0a" {
		t.Errorf("address: got %s", got)
	}
}

// What is no frame harms nobody, and a flood is dropped where nobody reads.
func TestGarbageAndFlood(t *testing.T) {
	_, g, _ := network(t, "a", "b")
	if _, err := g["a"].conn.WriteToUnix([]byte("short"), g["a"].peer); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * queue {
		g["a"].send(2, fmt.Sprint(i))
	}
	g["b"].expect("0")
	g["b"].send(1, "alive")
	g["a"].expect("alive")
}
