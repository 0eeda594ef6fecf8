// Package tlschild makes TLS connections for PID 1 by a child process.
//
// crypto/tls and its parsers would make PID 1 a third larger, and put what a
// stranger on the network sends into the one process that must not fall. So
// `node tls ADDRESS` does that, as nobody, in namespaces of its own, with one
// socket to PID 1 and one report of how it went: PID 1 speaks HTTP through it
// as through any other connection (package metadata), with the same bounds. The
// other end is node/tlspipe; testvm/https holds the two together.
//
// The child trusts the certificates of the image and those that it is given.
package tlschild

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"keelson/init/service"
)

// Config says how a child is started.
type Config struct {
	Program string // layout.Node
	Reaper  *service.Reaper
	// Own has the child run with the rights and namespaces of its parent, for
	// tests by somebody who is not root.
	Own bool
}

// Roots are the certificates to trust, beside those of the image or alone.
type Roots struct {
	PEM   []byte
	Alone bool
}

// nobody is the user of no file (configs' passwd).
const nobody = 65534

// maxReport bounds what is read of the child's words.
const maxReport = 4 << 10

// Dial connects to HOST:PORT and returns when the server has shown who it is.
func (c Config) Dial(ctx context.Context, address string, roots Roots) (net.Conn, error) {
	near, far, err := pair()
	if err != nil {
		return nil, err
	}
	defer far.Close()
	report, reportOut, err := os.Pipe()
	if err != nil {
		near.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	defer report.Close()
	defer reportOut.Close()
	certs, certsOut, err := os.Pipe()
	if err != nil {
		near.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	defer certs.Close()
	argv := []string{c.Program, "tls", address}
	if roots.Alone {
		argv = append(argv, "--only-given")
	}
	pid, ended, err := c.Reaper.Start(c.Program, argv, &syscall.ProcAttr{
		Dir: "/", Env: service.Environment(), Sys: c.rights(),
		Files: []uintptr{far.Fd(), reportOut.Fd(), reportOut.Fd(), certs.Fd()},
	})
	if err != nil {
		near.Close()
		certsOut.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	far.Close()
	reportOut.Close()
	certs.Close()
	go func() {
		// A child that does not read them has said why.
		_, _ = certsOut.Write(roots.PEM)
		certsOut.Close()
	}()
	kill := func() { unix.Kill(pid, unix.SIGKILL) }
	stop := context.AfterFunc(ctx, kill)
	line, err := bufio.NewReader(io.LimitReader(report, maxReport)).ReadString('\n')
	stop()
	if err == nil && strings.TrimSpace(line) == "connected" && ctx.Err() == nil {
		return &childConn{Conn: near, kill: kill, ended: ended}, nil
	}
	near.Close()
	kill()
	status := <-ended
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if line = strings.TrimSpace(line); line == "" {
		line = status.String()
	}
	return nil, errors.New("TLS: " + strings.TrimPrefix(line, "node: "))
}

// rights takes from the child what it has no need of.
func (c Config) rights() *syscall.SysProcAttr {
	if c.Own {
		return nil
	}
	return &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: nobody, Gid: nobody},
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWUTS,
		Setsid:     true,
	}
}

// pair makes two sockets that are connected: one for a child, one for us.
func pair() (near net.Conn, far *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("TLS: %w", err)
	}
	far = os.NewFile(uintptr(fds[1]), "far end")
	mine := os.NewFile(uintptr(fds[0]), "near end")
	defer mine.Close() // FileConn makes its own
	if near, err = net.FileConn(mine); err != nil {
		far.Close()
		return nil, nil, fmt.Errorf("TLS: %w", err)
	}
	return near, far, nil
}

// childConn takes its child along when it is closed.
type childConn struct {
	net.Conn
	kill  func()
	ended <-chan service.Status
}

func (c *childConn) Close() error {
	err := c.Conn.Close()
	c.kill()
	return err
}

// Trusted joins certificates in PEM to one text.
func Trusted(certs []string) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		b.WriteString(strings.TrimSpace(c))
		b.WriteByte('\n')
	}
	return b.Bytes()
}
