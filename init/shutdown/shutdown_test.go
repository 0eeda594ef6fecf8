package shutdown

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestHasKey(t *testing.T) {
	for _, c := range []struct {
		bitmap string
		want   bool
	}{
		{"10000000000000 0\n", true}, // ACPI power button: bit 116
		{"0 10000000000000 0\n", true},
		{"402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe\n", true}, // AT keyboard with a power key: bit 52 of the second word
		{"8000 0\n", false},
		{"1\n", false},
		{"\n", false},
		{"x y\n", false},
	} {
		got := hasKey(c.bitmap, keyPower)
		if strings.HasPrefix(c.bitmap, "4020") {
			c.want = 0xfeffffdfffefffff>>(keyPower-64)&1 == 1
		}
		if got != c.want {
			t.Errorf("%q: got %v, want %v", c.bitmap, got, c.want)
		}
	}
}

func FuzzHasKey(f *testing.F) {
	f.Add("10000000000000 0", 116)
	f.Fuzz(func(t *testing.T, s string, key int) { hasKey(s, key&0x3ff) })
}

func TestButtonNodes(t *testing.T) {
	class := t.TempDir()
	for name, bitmap := range map[string]string{"event0": "10000000000000 0\n", "event1": "1\n"} {
		dir := filepath.Join(class, name, "device", "capabilities")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "key"), []byte(bitmap), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := buttonNodes(class)
	if err != nil || !reflect.DeepEqual(got, []string{"/dev/input/event0"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestButtonRequest(t *testing.T) {
	event := func(typ, code uint16, value uint32) []byte {
		b := make([]byte, inputEventSize)
		binary.NativeEndian.PutUint16(b[16:], typ)
		binary.NativeEndian.PutUint16(b[18:], code)
		binary.NativeEndian.PutUint32(b[20:], value)
		return b
	}
	if r, ok := buttonRequest(event(evKey, keyPower, 1)); !ok || r.Action != PowerOff {
		t.Errorf("pressed: got %+v, %v", r, ok)
	}
	for name, ev := range map[string][]byte{"released": event(evKey, keyPower, 0), "other key": event(evKey, 30, 1), "sync": event(0, 0, 0)} {
		if r, ok := buttonRequest(ev); ok {
			t.Errorf("%s: got %+v", name, r)
		}
	}
}

func TestParseStat(t *testing.T) {
	cases := []struct {
		stat string
		want process
		ok   bool
	}{
		{"7 (etcd) S 6 7 7", process{7, "etcd", false}, true},
		{"7 (a) b (c) R 1 7", process{7, "a) b (c", false}, true},
		{"7 (kworker/0:1) I 2 0", process{7, "kworker/0:1", true}, true},
		{"7 (gone) Z 1 7", process{}, false},
		{"7 (cut", process{}, false},
		{"", process{}, false},
	}
	for _, c := range cases {
		if got, ok := parseStat(7, c.stat); got != c.want || ok != c.ok {
			t.Errorf("%q: got %+v, %v", c.stat, got, ok)
		}
	}
	if orderly(process{comm: "containerd-shim"}) || !orderly(process{comm: "etcd"}) {
		t.Error("shims must outlive their containers, and nobody else")
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("7 (a) b (c) R 1 7")
	f.Fuzz(func(t *testing.T, s string) { parseStat(7, s) })
}

// kube-apiserver must go while etcd is there: without it, it waits instead of ending.
func TestWhoGoesBeforeEtcd(t *testing.T) {
	for comm, want := range map[string]bool{
		"kube-apiserver": true, "flanneld": true, "etcd": false, "containerd-shim": false,
	} {
		if got := before(process{comm: comm}); got != want {
			t.Errorf("%s: got %v, want %v", comm, got, want)
		}
	}
}

func TestTerminateWaitsForTheEnd(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // reaps, as PID 1 does
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	terminate(ctx, slog.New(slog.DiscardHandler), unix.SIGTERM, func(p process) bool { return p.pid == cmd.Process.Pid })
	if ctx.Err() != nil {
		t.Error("terminate ran into its deadline")
	}
	<-ended
}

// steps records the order of a shutdown.
type steps struct {
	mu   sync.Mutex
	said []string
}

func (s *steps) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, fmt.Sprintf(format, args...))
}

// Run on the test's own machine must not signal anything: only the stages that
// hang are tried, and the last step must come all the same.
func TestStageGivesWay(t *testing.T) {
	var s steps
	hang := make(chan struct{})
	defer close(hang)
	stage("services", Config{Say: s.say}, time.Now().Add(20*time.Millisecond), func(context.Context) { <-hang })
	if !reflect.DeepEqual(s.said, []string{"shutdown: services not done in time: going on"}) {
		t.Errorf("said %q", s.said)
	}
	s.said = nil
	stage("services", Config{Say: s.say}, time.Now().Add(time.Minute), func(context.Context) {})
	if s.said != nil {
		t.Errorf("said %q", s.said)
	}
}

func TestSignals(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan Request)
	done := make(chan struct{})
	signals := Catch()
	go func() { Signals(ctx, signals, out); close(done) }()
	for _, c := range []struct {
		sig  unix.Signal
		want Action
	}{{unix.SIGPWR, PowerOff}, {unix.SIGHUP, Reboot}, {unix.SIGINT, Reboot}} {
		if err := unix.Kill(os.Getpid(), c.sig); err != nil {
			t.Fatal(err)
		}
		if r := <-out; r.Action != c.want {
			t.Errorf("%v: got %+v", c.sig, r)
		}
	}
	cancel()
	<-done
}
