package tunnel

import (
	"net"
	"os"
	"sync"
	"time"
)

// streams counts what runs through one tunnel, bounds it, and waits for its end.
type streams struct {
	mu    sync.Mutex
	open  int
	most  int
	ended bool
	wg    sync.WaitGroup
}

// enter takes a place; each success wants a leave.
func (s *streams) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return errEnded
	case s.open >= s.most:
		return errStreams
	}
	s.open++
	s.wg.Add(1)
	return nil
}

func (s *streams) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	s.wg.Done()
}

// end lets nobody in any more, and returns when all have left.
func (s *streams) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.wg.Wait()
}

// stream is the server's end of one connection through a tunnel. Its deadlines are its own, because those of
// remotedialer do harm (v0.6.1 connection.go, readbuffer.go): a write deadline closes the connection when it passes even
// if the write was done in time, and a read deadline does not wake a reader. A Read or Write that is cut by its deadline
// here ends the stream, for there is no other way to wake remotedialer.
type stream struct {
	net.Conn
	done func() // called once, by the first Close

	mu          sync.Mutex
	closed      bool
	expired     bool
	read, write side
}

// side is the deadline of one direction.
type side struct {
	until time.Time
	timer *time.Timer
	busy  int // calls that run
}

func (d *side) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

func (d *side) passed() bool { return !d.until.IsZero() && !time.Now().Before(d.until) }

func (s *stream) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.read.stop()
	s.write.stop()
	s.mu.Unlock()
	err := s.Conn.Close()
	s.done()
	return err
}

func (s *stream) Read(b []byte) (int, error)  { return s.do(&s.read, s.Conn.Read, b) }
func (s *stream) Write(b []byte) (int, error) { return s.do(&s.write, s.Conn.Write, b) }

func (s *stream) do(d *side, call func([]byte) (int, error), b []byte) (int, error) {
	s.mu.Lock()
	if d.passed() {
		s.mu.Unlock()
		return 0, os.ErrDeadlineExceeded
	}
	d.busy++
	s.mu.Unlock()
	n, err := call(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	d.busy--
	if err != nil && s.expired {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

func (s *stream) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

func (s *stream) SetReadDeadline(t time.Time) error  { return s.at(&s.read, t) }
func (s *stream) SetWriteDeadline(t time.Time) error { return s.at(&s.write, t) }

func (s *stream) at(d *side, t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	d.stop()
	if d.until = t; t.IsZero() {
		return nil
	}
	d.timer = time.AfterFunc(time.Until(t), func() {
		s.mu.Lock()
		due := d.busy > 0 && d.passed()
		s.expired = s.expired || due
		s.mu.Unlock()
		if due {
			_ = s.Close()
		}
	})
	return nil
}
