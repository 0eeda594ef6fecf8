package uevent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// kernelGroup is the multicast group of the kernel itself (udev's is 2).
const kernelGroup = 1

// receiveBuffer holds the burst of a cold start; the kernel drops what is more
// and Run then tells every subscriber with a Lost event.
const receiveBuffer = 8 << 20

// maxQueue bounds what a subscriber may fall behind.
const maxQueue = 1 << 14

// Listener owns the socket. Events are kept by the kernel from Listen on, also
// before Run is called.
type Listener struct {
	file *os.File
	log  *slog.Logger

	mu   sync.Mutex
	subs []*Subscription
}

// Listen opens the socket.
func Listen(log *slog.Logger) (*Listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("open uevent socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		log.Warn("uevent receive buffer stays small", "error", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind uevent socket: %w", err)
	}
	return &Listener{file: os.NewFile(uintptr(fd), "uevent"), log: log}, nil
}

// Run hands events to the subscribers until ctx ends.
func (l *Listener) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.file.Close() })
	defer stop()
	raw, err := l.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("uevent socket: %w", err)
	}
	buf := make([]byte, 16<<10) // UEVENT_BUFFER_SIZE is 2048
	for {
		n, sender, rerr := 0, unix.Sockaddr(nil), error(nil)
		err := raw.Read(func(fd uintptr) bool {
			n, sender, rerr = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(rerr, unix.EAGAIN)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("read uevent: %w", err)
		case errors.Is(rerr, unix.ENOBUFS):
			l.send(Event{Action: Lost})
			continue
		case errors.Is(rerr, unix.EINTR):
			continue
		case rerr != nil:
			return fmt.Errorf("read uevent: %w", rerr)
		}
		// A container with CAP_NET_ADMIN could send to the group as well: only
		// the kernel has port 0.
		if from, ok := sender.(*unix.SockaddrNetlink); !ok || from.Pid != 0 {
			continue
		}
		ev, err := Parse(buf[:n])
		if err != nil {
			l.log.Warn("uevent skipped", "error", err)
			continue
		}
		l.send(ev)
	}
}

func (l *Listener) send(ev Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.subs {
		s.put(ev)
	}
}

// Subscribe begins a queue of the events of one subsystem ("" for all). The
// subscriber ends it with Close.
func (l *Listener) Subscribe(subsystem string) *Subscription {
	s := newSubscription(subsystem)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subs = append(l.subs, s)
	s.close = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.subs = slices.DeleteFunc(l.subs, func(o *Subscription) bool { return o == s })
	}
	return s
}

// Subscription is one subscriber's queue.
type Subscription struct {
	subsystem string
	ready     chan struct{} // capacity 1: the queue is not empty
	close     func()

	mu    sync.Mutex
	queue []Event
}

func newSubscription(subsystem string) *Subscription {
	return &Subscription{subsystem: subsystem, ready: make(chan struct{}, 1), close: func() {}}
}

// Close ends the subscription.
func (s *Subscription) Close() { s.close() }

func (s *Subscription) put(ev Event) {
	if s.subsystem != "" && ev.Subsystem != s.subsystem && ev.Action != Lost {
		return
	}
	s.mu.Lock()
	if len(s.queue) >= maxQueue {
		s.queue = append(s.queue[:0], Event{Action: Lost})
	}
	s.queue = append(s.queue, ev)
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Next waits for the next event.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 {
			ev := s.queue[0]
			s.queue = s.queue[1:]
			s.mu.Unlock()
			return ev, nil
		}
		s.mu.Unlock()
		select {
		case <-s.ready:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}
