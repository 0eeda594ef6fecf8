package containerd

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func listen(t *testing.T, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

func TestWaitIsWokenByTheSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "run", "containerd.sock")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- Wait(ctx, socket) }()
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	listen(t, socket)
	if err := <-done; err != nil {
		t.Errorf("got %v, want nil once it listens", err)
	}
}

func TestWaitKnowsADeadSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "containerd.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := Wait(ctx, socket); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline: nobody listens", err)
	}
}

// TestWaitKnowsASocketThatIsBoundOnly: a daemon binds first and listens then, and tells nobody when it does.
func TestWaitKnowsASocketThatIsBoundOnly(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "containerd.sock")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: socket}); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := Wait(short, socket); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("bound: got %v, want the deadline", err)
	}
	long, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- Wait(long, socket) }()
	if err := syscall.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("listening: got %v", err)
	}
}
