package process

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// The test binary is its own child: with this variable set it acts as the program under supervision.
const roleVariable = "PROCESS_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "end":
		os.Stdout.WriteString("ended by itself\n")
		os.Exit(3)
	case "environ":
		fmt.Println("environment:", os.Environ())
		os.Exit(3)
	case "stay":
		os.Stdout.WriteString("pid " + strconv.Itoa(os.Getpid()) + "\n")
		for { // select{} with nothing else to do is an error to the Go runtime
			_ = syscall.Pause()
		}
	}
}

func newProcess(t *testing.T, role string) (*Process, string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "logs", "child.log")
	p, err := New(Config{Name: "child", Path: self, Env: []string{roleVariable + "=" + role}, LogFile: log})
	if err != nil {
		t.Fatal(err)
	}
	p.delay = delays{first: time.Microsecond, last: time.Microsecond, steady: time.Hour}
	return p, log
}

// awaitLog returns the log once it holds want count times, woken by the file's own changes.
func awaitLog(t *testing.T, log, want string, count int) string {
	t.Helper()
	watch, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := watch.Add(filepath.Dir(log)); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(30 * time.Second)
	for {
		if got, _ := os.ReadFile(log); bytes.Count(got, []byte(want)) >= count {
			return string(got)
		}
		select {
		case <-watch.Events:
		case <-deadline:
			got, _ := os.ReadFile(log)
			t.Fatalf("log never held %q %d times; it holds %q", want, count, got)
		}
	}
}

func run(t *testing.T, p *Process) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = func() error { cancel(); return <-done }
	t.Cleanup(cancel)
	return stop
}

func TestRunRestartsAChildThatEnds(t *testing.T) {
	p, log := newProcess(t, "end")
	stop := run(t, p)
	awaitLog(t, log, "ended by itself", 3)
	if err := stop(); err != nil {
		t.Fatalf("Run: got %v, want nil after cancel", err)
	}
	if got := p.Starts(); got < 3 {
		t.Errorf("starts: got %d, want at least 3", got)
	}
}

func TestRunEndsTheChildWhenCancelled(t *testing.T) {
	p, log := newProcess(t, "stay")
	stop := run(t, p)
	line := awaitLog(t, log, "pid ", 1)
	pid, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "pid ")))
	if err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatalf("Run: got %v, want nil after cancel", err)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("child %d after Run returned: got %v, want no such process", pid, err)
	}
}

func TestSignalReachesTheChild(t *testing.T) {
	p, log := newProcess(t, "stay")
	stop := run(t, p)
	awaitLog(t, log, "pid ", 1)
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, log, "pid ", 2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("signal with no child: got %v, want nil", err)
	}
}

func TestChildSeesNothingOfOurEnvironment(t *testing.T) {
	t.Setenv("SECRET_OF_PARENT", "x")
	p, log := newProcess(t, "environ")
	stop := run(t, p)
	got := awaitLog(t, log, "environment: ", 1)
	_ = stop()
	if want := "environment: [" + roleVariable + "=environ]\n"; !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want %q first", got, want)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no name", Config{Path: "/bin/x", LogFile: "/l"}, "absolute path"},
		{"relative program", Config{Name: "n", Path: "x", LogFile: "/l"}, "absolute path"},
		{"no log", Config{Name: "n", Path: "/bin/x"}, "no log file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestRunNamesAMissingProgram(t *testing.T) {
	p, err := New(Config{Name: "ghost", Path: "/nonexistent/ghost", LogFile: filepath.Join(t.TempDir(), "l")})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "ghost") {
		t.Errorf("got %v, want an error that names the program", err)
	}
}

func TestDelays(t *testing.T) {
	d := delays{first: 100, last: 500, steady: 1000}
	for i, c := range []struct{ ran, want time.Duration }{
		{1, 100}, {1, 200}, {1, 400}, {1, 500}, {1, 500}, {1000, 100}, {1, 200},
	} {
		if got := d.next(c.ran); got != c.want {
			t.Errorf("wait %d after a run of %d: got %d, want %d", i, c.ran, got, c.want)
		}
	}
}
