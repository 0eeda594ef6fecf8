package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
)

// forwarder lets loopback ports of one side lead to addresses of another, as QEMU's hostfwd does for a VM.
type forwarder struct {
	listener net.Listener
	to       func(context.Context) (net.Conn, error)
	stop     context.CancelFunc
	done     sync.WaitGroup
}

// forward begins to hand each connection of the listener on.
func forward(listener net.Listener, to func(context.Context) (net.Conn, error)) *forwarder {
	ctx, stop := context.WithCancel(context.Background())
	f := &forwarder{listener: listener, to: to, stop: stop}
	f.done.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			f.done.Go(func() { f.carry(ctx, conn) })
		}
	})
	return f
}

// carry copies both ways until both ends are done, or the forwarder is.
func (f *forwarder) carry(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	other, err := f.to(ctx)
	if err != nil {
		return // the machine is off: a connection that ends says so
	}
	defer other.Close()
	unblock := context.AfterFunc(ctx, func() {
		conn.Close()
		other.Close()
	})
	defer unblock()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{conn, other}, {other, conn}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			if half, ok := way[0].(*net.TCPConn); ok {
				half.CloseWrite()
			}
		})
	}
	both.Wait()
}

// Close ends it and every connection.
func (f *forwarder) Close() error {
	f.stop()
	err := f.listener.Close()
	f.done.Wait()
	return err
}

// Share gives the machines a port of the host's loopback, at Gateway and Gateway6 with the same number, until the
// function that it returns is called.
func (l *LAN) Share(port int) (stop func() error, err error) {
	var all []*forwarder
	stop = func() error {
		var errs []error
		for _, f := range all {
			errs = append(errs, f.Close())
		}
		return errors.Join(errs...)
	}
	for _, at := range []netip.Addr{Gateway(), Gateway6()} {
		listener, err := l.listen(at, port)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("share port %d: %w", port, err), stop())
		}
		all = append(all, forward(listener, func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		}))
	}
	return stop, nil
}
