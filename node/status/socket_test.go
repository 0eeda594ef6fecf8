package status

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// start answers on a socket until the test ends.
func start(t *testing.T, report func(context.Context) Report) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "node", "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l, report, slog.New(slog.DiscardHandler), 2*time.Second) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return socket
}

func TestAsk(t *testing.T) {
	want := examples()["server"]
	socket := start(t, func(ctx context.Context) Report {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("a report may take for ever")
		}
		return want
	})
	for range 3 * mostClients { // a connection that ended makes room for the next
		got, err := Ask(t.Context(), socket)
		if err != nil || got.Node != want.Node || got.Etcd == nil || len(got.Etcd.Members) != 3 {
			t.Fatalf("got %+v, %v", got, err)
		}
	}
}

func TestAskNobody(t *testing.T) {
	dir := t.TempDir()
	if _, err := Ask(t.Context(), filepath.Join(dir, "s")); !errors.Is(err, ErrStopped) {
		t.Errorf("no socket: got %v", err)
	}
	// A supervisor that was killed leaves its socket.
	socket := filepath.Join(dir, "node", "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*gate).Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Ask(t.Context(), socket); !errors.Is(err, ErrStopped) {
		t.Errorf("a socket that was left: got %v", err)
	}
	if l, err = Listen(socket); err != nil {
		t.Fatalf("a socket that was left is in the way: %v", err)
	}
	l.Close()
}

func TestAskRefusesWhatIsNoReport(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"no JSON":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") },
		"an error": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "busy", http.StatusServiceUnavailable) },
		"never end": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"version":"`+strings.Repeat("x", 2*mostReport))
		},
	} {
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: answer, ReadHeaderTimeout: time.Minute}
		go func() { _ = server.Serve(l) }()
		if _, err := Ask(t.Context(), l.Addr().String()); err == nil || errors.Is(err, ErrStopped) {
			t.Errorf("%s: got %v", name, err)
		}
		server.Close()
	}
}

func TestSocketIsOfOneUserAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	if err := os.Mkdir(dir, 0o777); err != nil { // of somebody who was faster
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for path, want := range map[string]os.FileMode{dir: os.ModeDir | 0o700, socket: os.ModeSocket | 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode() != want {
			t.Errorf("%s: got %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	if os.Geteuid() != 0 {
		t.Log("whether another user is turned away is tried as root only")
		return
	}
	// Another user, whom a mistake in a mode has let in, is still turned away.
	for _, path := range []string{dir, filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, l, func(context.Context) Report { return Report{} }, slog.New(slog.DiscardHandler))
	}()
	got, err := asNobody(socket)
	cancel()
	if served := <-done; served != nil || err != nil || got != "" {
		t.Errorf("another user was answered: %q, %v, %v", got, err, served)
	}
}

// asNobody asks from a thread that has become another user, and ends with it.
func asNobody(socket string) (string, error) {
	type answer struct {
		text string
		err  error
	}
	out := make(chan answer)
	go func() {
		runtime.LockOSThread() // and never given back: it ends with the goroutine
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, 65534, 65534, 65534); e != 0 {
			out <- answer{err: e}
			return
		}
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			out <- answer{err: err}
			return
		}
		defer syscall.Close(fd)
		if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket}); err != nil {
			out <- answer{err: err}
			return
		}
		_, _ = syscall.Write(fd, []byte("GET /status HTTP/1.1\r\nHost: x\r\n\r\n"))
		buffer := make([]byte, 256)
		n, _ := syscall.Read(fd, buffer)
		out <- answer{text: string(buffer[:max(n, 0)])}
	}()
	a := <-out
	return a.text, a.err
}

func TestSocketLimits(t *testing.T) {
	var asked atomic.Int32
	socket := start(t, func(context.Context) Report { asked.Add(1); return Report{} })
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for name, request := range map[string]string{
		"another path":   "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"another method": "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
		"endless header": "GET /status HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 4*headerBytes) + "\r\n\r\n",
	} {
		c := dial()
		_, _ = io.WriteString(c, request)
		buffer := make([]byte, 32)
		n, err := c.Read(buffer)
		if text := string(buffer[:n]); err != nil || !strings.HasPrefix(text, "HTTP/1.1 4") {
			t.Errorf("%s: got %q, %v, want it refused", name, text, err)
		}
		c.Close()
	}
	if asked.Load() != 0 {
		t.Error("what was refused was looked for")
	}
	// Clients that say nothing are let go; one more than there may be is turned away at once.
	var silent []net.Conn
	for range mostClients {
		silent = append(silent, dial())
	}
	if _, err := dial().Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one too many: got %v, want it turned away", err)
	}
	for _, c := range silent {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("a silent client: got %v, want it let go", err)
		}
	}
}
