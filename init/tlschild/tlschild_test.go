package tlschild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"keelson/init/service"
)

// TestMain is the child as well: what it does depends on the address.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "tls" {
		child(os.Args[2:])
		return
	}
	os.Exit(m.Run())
}

func child(args []string) {
	switch args[0] {
	case "echo:443":
		certs, _ := io.ReadAll(os.NewFile(3, "certificates"))
		fmt.Println("connected")
		socket := os.NewFile(0, "socket")
		fmt.Fprintf(socket, "%q with %d bytes of certificates, as %d\n", args, len(certs), os.Getuid())
		io.Copy(socket, socket)
	case "refused:443":
		fmt.Fprintln(os.Stderr, "node: x509: certificate signed by unknown authority")
		syscall.Exit(1)
	case "crash:443":
		syscall.Exit(7) // os.Exit would have a word to say where coverage is measured
	case "silent:443":
		_, _ = io.Copy(io.Discard, os.NewFile(0, "socket")) // ends by a signal
	}
}

func config(t *testing.T) Config {
	t.Helper()
	r := service.NewReaper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return Config{Program: reachable(t), Reaper: r, Own: os.Getuid() != 0}
}

// reachable is this test's program where nobody, whom the child is, can reach it.
func reachable(t *testing.T) string {
	t.Helper()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/node", data, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir + "/node"
}

func TestDial(t *testing.T) {
	c := config(t)
	// More than a pipe holds.
	conn, err := c.Dial(t.Context(), "echo:443", Roots{PEM: make([]byte, 200_000), Alone: true})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 200)
	n, err := conn.Read(buf)
	user := 65534
	if c.Own {
		user = os.Getuid()
	}
	want := fmt.Sprintf("[\"echo:443\" \"--only-given\"] with 200000 bytes of certificates, as %d\n", user)
	if got := string(buf[:n]); err != nil || got != want {
		t.Errorf("got %q %v, want %q", got, err, want)
	}
	if _, err := io.WriteString(conn, "and back"); err != nil {
		t.Error(err)
	}
	if n, err = conn.Read(buf); err != nil || string(buf[:n]) != "and back" {
		t.Errorf("got %q %v", buf[:n], err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	<-conn.(*childConn).ended // it ends with its connection
}

func TestFailures(t *testing.T) {
	c := config(t)
	for address, want := range map[string]string{
		"refused:443": "TLS: x509: certificate signed by unknown authority", "crash:443": "TLS: exit status 7",
	} {
		if _, err := c.Dial(t.Context(), address, Roots{PEM: make([]byte, 200_000)}); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", address, err, want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Dial(ctx, "silent:443", Roots{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
	c.Program = "/nowhere/node"
	if _, err := c.Dial(t.Context(), "echo:443", Roots{}); err == nil || !strings.Contains(err.Error(), "/nowhere/node") {
		t.Errorf("got %v", err)
	}
}

func TestTrusted(t *testing.T) {
	if got, want := string(Trusted([]string{"a\n", " b"})), "a\nb\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Trusted(nil); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}
