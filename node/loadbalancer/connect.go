package loadbalancer

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// serve finds a server for client and copies both ways until either side ends or the server dies.
func (b *Balancer) serve(ctx context.Context, client net.Conn) {
	defer context.AfterFunc(ctx, func() { client.Close() })()
	l := b.hold(ctx, client)
	if l == nil {
		return
	}
	defer l.close()
	defer context.AfterFunc(ctx, l.close)()
	err := pass(l.client, l.upstream)
	b.owner.end(l)
	if err != nil && ctx.Err() == nil {
		b.prober.kick(l.server)
	}
}

// hold gives the client's link to a server. When none can be had it waits: for the servers to become better, or for
// its turn to be the one that tries again, up to the hold time.
func (b *Balancer) hold(ctx context.Context, client net.Conn) *link {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.HoldTime)
	defer cancel()
	for {
		servers, better := b.owner.servers()
		if l := b.connect(ctx, client, servers); l != nil {
			return l
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				b.log.Warn("client let go: no server answers", "servers", len(servers))
			}
			return nil
		case <-better:
		case b.scout <- struct{}{}:
			pause := time.NewTimer(retry)
			select {
			case <-ctx.Done():
			case <-better:
			case <-pause.C:
			}
			pause.Stop()
			<-b.scout
		}
	}
}

// answer is the outcome of one dial.
type answer struct {
	server string
	conn   net.Conn
	err    error
}

// connect dials down the list; the next server's turn comes when one fails, or has not answered for a while. The
// first to answer gets the client, and those that could not for that while are taken for dead.
func (b *Balancer) connect(ctx context.Context, client net.Conn, servers []server) *link {
	ctx, cancel := context.WithCancel(ctx)
	var dials sync.WaitGroup
	answers := make(chan answer, len(servers))
	pending := map[string]time.Time{} // since when
	defer func() {                    // whoever answers after the winner is closed, and waited for
		cancel()
		dials.Wait()
		close(answers)
		for a := range answers {
			if a.conn != nil {
				a.conn.Close()
			}
		}
	}()
	slow := time.NewTimer(b.patience)
	defer slow.Stop()
	for next := 0; next < len(servers) || len(pending) > 0; {
		if next < len(servers) {
			address := servers[next].address
			next++
			pending[address] = time.Now()
			slow.Reset(b.patience)
			dials.Go(func() {
				conn, err := b.dial(ctx, "tcp", address)
				answers <- answer{address, conn, err}
			})
		}
		for again := true; again; {
			select {
			case <-ctx.Done():
				return nil
			case <-slow.C:
				again = next == len(servers)
			case a := <-answers:
				began := pending[a.server]
				delete(pending, a.server)
				if a.err == nil {
					for other, since := range pending {
						if time.Since(since) >= b.patience {
							b.tell(event{kind: dialFailed, server: other, began: since})
						}
					}
					if l := b.open(client, a); l != nil {
						return l
					}
				} else if ctx.Err() == nil {
					b.log.Debug("dial", "server", a.server, "error", a.err)
					b.tell(event{kind: dialFailed, server: a.server, began: began})
				}
				again = next == len(servers) && len(pending) > 0
			}
		}
	}
	return nil
}

func (b *Balancer) open(client net.Conn, a answer) *link {
	l := &link{server: a.server, client: client, upstream: a.conn}
	moves, kept := b.owner.open(l)
	b.doubt(moves)
	if !kept {
		return nil
	}
	return l
}

// pass copies both ways until both sides ended. Its error is the server's side's.
func pass(client, upstream net.Conn) error {
	var back error
	var group sync.WaitGroup
	group.Go(func() { back = copyHalf(client, upstream) })
	forth := copyHalf(upstream, client)
	group.Wait()
	if errors.Is(back, net.ErrClosed) {
		return forth
	}
	return back
}

// copyHalf copies until src ends and then ends dst's writing side, so that a half-closed connection stays whole.
// Both are *net.TCPConn, between which io.Copy lets the kernel move the bytes (splice).
func copyHalf(dst, src net.Conn) error {
	_, err := io.Copy(dst, src)
	if half, ok := dst.(*net.TCPConn); ok && err == nil {
		_ = half.CloseWrite()
		return nil
	}
	dst.Close()
	src.Close()
	return err
}
