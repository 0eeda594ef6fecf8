package service

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is its own child: TestMain plays the programs.
func TestMain(m *testing.M) {
	switch os.Getenv("PLAY") {
	case "":
		os.Exit(m.Run())
	case "say":
		fmt.Println("first line")
		fmt.Fprintln(os.Stderr, "second line")
		os.Exit(3)
	case "stay":
		fmt.Println("ready")
		for { // select{} with nothing else to do is an error to the Go runtime
			_ = syscall.Pause()
		}
	}
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func reaper(t *testing.T) *Reaper {
	t.Helper()
	r := NewReaper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

// seen collects lines and lets a test wait for one.
type seen struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func newSeen() *seen { return &seen{more: make(chan struct{}, 1000)} }

func (s *seen) add(line string) {
	s.mu.Lock()
	s.lines = append(s.lines, line)
	s.mu.Unlock()
	s.more <- struct{}{}
}

func (s *seen) wait(t *testing.T, text string, times int) {
	t.Helper()
	for {
		s.mu.Lock()
		n := strings.Count(strings.Join(s.lines, "\n"), text)
		s.mu.Unlock()
		if n >= times {
			return
		}
		select {
		case <-s.more:
		case <-time.After(20 * time.Second):
			t.Fatalf("%q was not seen %d times among %q", text, times, s.lines)
		}
	}
}

func TestToolGivesOutputAndCode(t *testing.T) {
	r := reaper(t)
	out, code, err := r.Tool(context.Background(), "/bin/sh", "-c", "echo out; echo err >&2; exit 5")
	if err != nil || code != 5 || out != "out\nerr\n" {
		t.Errorf("got %q, %d, %v", out, code, err)
	}
	if _, code, err = r.Tool(context.Background(), "/bin/sh", "-c", "kill -9 $$"); err != nil || code != -1 {
		t.Errorf("killed: got %d, %v", code, err)
	}
	if _, _, err = r.Tool(context.Background(), "/no/such"); err == nil || !strings.Contains(err.Error(), "/no/such") {
		t.Errorf("absent: got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err = r.Tool(ctx, "/bin/sh", "-c", "exec sleep 100"); err == nil {
		t.Error("ended context: got no error")
	}
}

// Many short children at once: every owner gets its own status, whoever the
// kernel reports first.
func TestReaperRoutesStatuses(t *testing.T) {
	r := reaper(t)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			pid, ended, err := r.Start("/bin/sh", []string{"sh", "-c", fmt.Sprintf("exit %d", i)}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
			if err != nil {
				t.Error(err)
				return
			}
			if st := <-ended; st.PID != pid || st.Wait.ExitStatus() != i {
				t.Errorf("child %d: got %v, want %d", pid, st, i)
			}
		})
	}
	wg.Wait()
	if children, _ := r.Alive(); children != 0 {
		t.Errorf("%d children are still owned", children)
	}
}

// A grandchild whose parent ends comes to PID 1, here made the subreaper.
func TestReaperTakesOrphans(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Skipf("subreaper: %v", err)
	}
	r := reaper(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// The orphan ends when the fifo is opened, after its parent.
	if _, code, err := r.Tool(context.Background(), "/bin/sh", "-c", "(exec >/dev/null 2>&1 </dev/null; : >"+fifo+") & exit 0"); err != nil || code != 0 {
		t.Fatal(code, err)
	}
	f, err := os.Open(fifo)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	deadline := time.Now().Add(20 * time.Second)
	for {
		if _, reaped := r.Alive(); reaped == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the orphan was not reaped")
		}
		r.sigchld <- unix.SIGCHLD // hurry: the signal may be on its way
	}
}

func TestServiceRestartsAndLogs(t *testing.T) {
	var log bytes.Buffer
	var mu sync.Mutex
	lines := newSeen()
	s, err := New(Config{
		Name: "talker", Argv: []string{self(t)}, Env: []string{"PLAY=say"}, Reaper: reaper(t), Logger: slog.New(slog.DiscardHandler),
		Log:    writerFunc(func(b []byte) (int, error) { mu.Lock(); defer mu.Unlock(); return log.Write(b) }),
		OnLine: lines.add, Backoff: Backoff{Min: time.Millisecond, Max: 2 * time.Millisecond, Reset: time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	lines.wait(t, "first line", 3)
	lines.wait(t, "keelson: service talker: exit status 3", 2)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(log.String(), "Z first line\n") || !strings.Contains(log.String(), "Z second line\n") {
		t.Errorf("log: %q", log.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestServiceStopsWithSIGTERM(t *testing.T) {
	lines := newSeen()
	s, err := New(Config{
		Name: "stayer", Argv: []string{self(t)}, Env: []string{"PLAY=stay"}, Reaper: reaper(t), Logger: slog.New(slog.DiscardHandler),
		Log: &bytes.Buffer{}, OnLine: lines.add,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	lines.wait(t, "ready", 1)
	if got := s.State(); !strings.HasPrefix(got, "running as ") {
		t.Errorf("state: got %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := s.State(); got != "not running, 0 restarts" {
		t.Errorf("state: got %q", got)
	}
}

func TestNewWantsWhatItNeeds(t *testing.T) {
	if _, err := New(Config{Name: "x"}); err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("got %v", err)
	}
}

func TestBackoff(t *testing.T) {
	b := Backoff{Min: time.Second, Max: 5 * time.Second, Reset: time.Minute}
	for i, c := range []struct{ ran, want time.Duration }{
		{0, time.Second}, {0, 2 * time.Second}, {time.Second, 4 * time.Second}, {0, 5 * time.Second}, {0, 5 * time.Second},
		{time.Minute, time.Second}, {0, 2 * time.Second},
	} {
		if got := b.After(c.ran); got != c.want {
			t.Errorf("end %d: got a pause of %s, want %s", i, got, c.want)
		}
	}
}

func TestLogFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	l, err := OpenLogFile(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		if _, err := fmt.Fprintf(l, "line %03d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	now, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path + ".1")
	if err != nil {
		t.Fatal(err)
	}
	if len(now) > 500 || len(before) > 500 {
		t.Errorf("got %d and %d bytes, want at most 500 each", len(now), len(before))
	}
	all := string(before) + string(now)
	if !strings.HasSuffix(all, "line 498\nline 499\n") || !strings.HasPrefix(all, "line ") {
		t.Errorf("lines were cut or lost: %q", all)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write([]byte("late\n")); err == nil {
		t.Error("write after close: got no error")
	}
	again, err := OpenLogFile(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if again.size != int64(len(now)) {
		t.Errorf("continued at %d, want %d", again.size, len(now))
	}
}
