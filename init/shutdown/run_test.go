package shutdown

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inside tells a test that it is PID 1 of a namespace.
const inside = "KEELSON_TEST_PID1"

// pid1 runs a test anew as PID 1 of a namespace, where a shutdown meets no process but the test's own. It is true in
// that process; elsewhere the test was run when it returns.
func pid1(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		if os.Getpid() != 1 {
			t.Fatalf("%s is set in a process that is not PID 1: it would end this machine's", inside)
		}
		if err := errors.Join(unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""), unix.Mount("proc", "/proc", "proc", 0, "")); err != nil {
			t.Skipf("SKIPPED: mounts are forbidden here: %v", err)
		}
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("needs root for a namespace of processes")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM):
		t.Skipf("SKIPPED: namespaces are forbidden here: %v", err)
	case err != nil:
		t.Fatalf("in its namespace: %v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	}
	t.Logf("%s", out)
	return false
}

// startProcess starts a program by a name of its own and reaps it; its end goes to ended. With stubborn it takes no notice
// of SIGTERM.
func startProcess(t *testing.T, name string, stubborn bool, ended chan<- string) {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), name)
	data, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	script := "echo; exec " + program + " 1000"
	if stubborn {
		script = "trap '' TERM; " + script
	}
	cmd := exec.Command("sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	// The shell has said its line; its name changes as it becomes the program.
	for comm := ""; comm != name; {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "comm"))
		if err != nil {
			t.Fatal(err)
		}
		comm = strings.TrimSpace(string(b))
	}
	go func() {
		io.Copy(io.Discard, out)
		cmd.Wait()
		ended <- name
	}()
}

// The whole order of an end: services, processes, etcd, what is kept, the stubborn, the state, and then the last step.
func TestRun(t *testing.T) {
	if !pid1(t) {
		return
	}
	ended := make(chan string, 3)
	startProcess(t, "ordinary", false, ended)
	startProcess(t, "etcd", false, ended)
	startProcess(t, "stubborn", true, ended)
	var s steps
	did := func(what string) { s.say("%s", what) }
	last := make(chan Action, 2)
	Run(Config{
		Services: func(context.Context) { did("services") },
		Save: func(context.Context) {
			did("ended: " + <-ended)
			did("ended: " + <-ended)
			did("save")
		},
		Unmount: func() error {
			did("ended: " + <-ended)
			did("unmount")
			return errors.New("busy\nread-only")
		},
		Say: s.say, Flush: func() { did("flush") }, Logger: slog.New(slog.DiscardHandler),
		Deadline: 4 * time.Second, Reboot: func(a Action) { last <- a },
	}, Request{Reboot, "test"})
	took := s.said[len(s.said)-2]
	s.said[len(s.said)-2] = "shutdown: reboot now"
	want := []string{
		"shutdown: reboot (test)", "services", "shutdown: processes not done in time: going on", "shutdown: datastore not done in time: going on",
		"ended: ordinary", "ended: etcd", "save", "ended: stubborn", "unmount", "shutdown: busy; read-only", "shutdown: reboot now", "flush",
	}
	if !reflect.DeepEqual(s.said, want) {
		t.Errorf("got %q\nwant %q", s.said, want)
	}
	if !strings.HasPrefix(took, "shutdown: reboot now (") {
		t.Errorf("last words: got %q", took)
	}
	if got := <-last; got != Reboot || len(last) != 0 {
		t.Errorf("last step: got %v and %d more, want one reboot", got, len(last))
	}
}

// What hangs where nothing can end it, as a dead disk has it, does not keep the machine.
func TestRunEndsByItsDeadline(t *testing.T) {
	if !pid1(t) {
		return
	}
	last := make(chan Action, 2)
	var s steps
	Run(Config{
		Services: func(ctx context.Context) { <-ctx.Done() },
		Save:     func(ctx context.Context) { <-ctx.Done() },
		Unmount: func() error {
			if got := <-last; got != PowerOff {
				t.Errorf("last step: got %v, want power off", got)
			}
			return nil
		},
		Say: s.say, Flush: func() {}, Logger: slog.New(slog.DiscardHandler),
		Deadline: time.Second, Reboot: func(a Action) { last <- a },
	}, Request{PowerOff, "test"})
	if got, want := s.said[1], "shutdown: services not done in time: going on"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A button is heard until the end, and its device's end is told.
func TestListen(t *testing.T) {
	event := func(kind, code uint16, value uint32) []byte {
		b := make([]byte, inputEventSize)
		binary.NativeEndian.PutUint16(b[16:], kind)
		binary.NativeEndian.PutUint16(b[18:], code)
		binary.NativeEndian.PutUint32(b[20:], value)
		return b
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, done := make(chan Request), make(chan error, 1)
	go func() { done <- listen(t.Context(), r, out) }()
	all := append(event(evKey, 30, 1), event(evKey, keyPower, 0)...)
	all = append(append(all, event(evKey, keyPower, 1)...), event(evKey, keyRestart, 1)...)
	if _, err := w.Write(all); err != nil {
		t.Fatal(err)
	}
	for _, want := range []Request{{PowerOff, "power button"}, {Reboot, "restart key"}} {
		if got := <-out; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	w.Close()
	if err := <-done; !errors.Is(err, io.EOF) {
		t.Errorf("a device that went away: got %v, want its end", err)
	}

	r, w, err = os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- listen(ctx, r, out) }()
	cancel()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("told to end: got %v, want that the device is closed", err)
	}
}
