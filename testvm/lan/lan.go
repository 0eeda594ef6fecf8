// Package lan is an Ethernet switch inside the test process, for virtual machines that are to see each other: no root,
// no bridge of the host, and faults at will (a machine cut off, two halves, loss, delay).
//
// QEMU reaches it with a datagram a frame over Unix sockets (`-netdev dgram`, QEMU 7.2 and later, docs/system/invocation).
// The switch learns addresses as a real one does, and gives none out: machines have static addresses from their
// network-config. Package machine plugs QEMU in; scenarios cut the cables.
package lan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	maxFrame = 65536 // with the guests' segmentation offload a frame is as large as an IP packet
	queue    = 1024  // frames that a port holds back before it drops, as a switch does
	maxPath  = 107   // of a Unix socket (unix(7))
)

// Fault is what happens to frames on their way to a machine.
type Fault struct {
	Cut   bool          // nothing passes, in either direction
	Loss  float64       // 0 to 1
	Delay time.Duration // of each frame; the order stays
}

// Config says where the sockets are.
type Config struct {
	Dir string // an empty folder of the switch's own, with a short path
	// Seen is called with each frame that comes in, before any fault; nil for nobody.
	Seen func(port string, frame []byte)
}

// Switch connects its ports.
type Switch struct {
	cfg Config

	mu     sync.Mutex // guards what follows, and the faults and groups of ports
	ports  map[string]*Port
	learnt map[[6]byte]*Port
	random *rand.Rand
}

// Port is where one machine is plugged in.
type Port struct {
	name string
	conn *net.UnixConn
	peer *net.UnixAddr
	out  chan delayed

	fault Fault
	group int
}

type delayed struct {
	frame []byte
	due   time.Time
}

// New makes a switch without ports.
func New(c Config) (*Switch, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make switch: %w", err)
	}
	return &Switch{cfg: c, ports: map[string]*Port{}, learnt: map[[6]byte]*Port{}, random: rand.New(rand.NewPCG(1, 1))}, nil
}

// Plug makes a port. All ports must be made before Run; a machine may come and go as often as it likes.
func (s *Switch) Plug(name string) (*Port, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ports[name] != nil {
		return nil, fmt.Errorf("plug %s in: the port is taken", name)
	}
	ours, theirs := filepath.Join(s.cfg.Dir, name+".sw"), filepath.Join(s.cfg.Dir, name+".vm")
	if len(ours) > maxPath {
		return nil, fmt.Errorf("plug %s in: socket path %s is longer than %d bytes; choose a shorter folder", name, ours, maxPath)
	}
	if err := os.Remove(ours); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("plug %s in: %w", name, err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: ours, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("plug %s in: %w", name, err)
	}
	p := &Port{name: name, conn: conn, peer: &net.UnixAddr{Name: theirs, Net: "unixgram"}, out: make(chan delayed, queue)}
	s.ports[name] = p
	return p, nil
}

// Netdev is the value of QEMU's -netdev for this port.
func (p *Port) Netdev(id string) string {
	return fmt.Sprintf("dgram,id=%s,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s", id, p.peer.Name, p.conn.LocalAddr().String())
}

// MAC is an address for the n-th machine: locally administered, QEMU's own prefix.
func MAC(n byte) string { return fmt.Sprintf("52:54:00:4b:45:%02x", n) }

// Run carries frames until ctx ends, and closes the ports.
func (s *Switch) Run(ctx context.Context) error {
	s.mu.Lock()
	var all []*Port
	for _, p := range s.ports {
		all = append(all, p)
	}
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		for _, p := range all {
			p.conn.Close()
		}
	})
	defer stop()
	var group sync.WaitGroup
	for _, p := range all {
		group.Go(func() { s.receive(p) })
		group.Go(func() { p.send(ctx) })
	}
	group.Wait()
	return nil
}

// receive ends when the port is closed.
func (s *Switch) receive(p *Port) {
	buffer := make([]byte, maxFrame)
	for {
		n, err := p.conn.Read(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 14 { // less than an Ethernet header
			continue
		}
		frame := append([]byte(nil), buffer[:n]...)
		if s.cfg.Seen != nil {
			s.cfg.Seen(p.name, frame)
		}
		s.forward(p, frame)
	}
}

// forward gives a frame to the port of its receiver, or to all where it is not known or is a group.
func (s *Switch) forward(from *Port, frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from.fault.Cut {
		return
	}
	var to, source [6]byte
	copy(to[:], frame)
	copy(source[:], frame[6:])
	s.learnt[source] = from
	if one := s.learnt[to]; one != nil && to[0]&1 == 0 {
		s.give(from, one, frame)
		return
	}
	for _, p := range s.ports {
		s.give(from, p, frame)
	}
}

func (s *Switch) give(from, to *Port, frame []byte) {
	if to == from || to.fault.Cut || to.group != from.group || s.random.Float64() < to.fault.Loss {
		return
	}
	select {
	case to.out <- delayed{frame, time.Now().Add(to.fault.Delay)}:
	default: // full, and dropped
	}
}

// send writes what is due. A machine that is not there, or does not read, loses its frames.
func (p *Port) send(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-p.out:
			if wait := time.Until(d.due); wait > 0 {
				timer := time.NewTimer(wait)
				select {
				case <-timer.C:
				case <-ctx.Done():
					timer.Stop()
					return
				}
			}
			_, _ = p.conn.WriteToUnix(d.frame, p.peer)
		}
	}
}

// Set puts a fault on a machine's cable; the zero Fault mends it.
func (s *Switch) Set(name string, f Fault) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[name]
	if p == nil {
		return fmt.Errorf("set fault: no port %s", name)
	}
	p.fault = f
	return nil
}

// Split lets machines reach only those of their own group; those that are in none are the last group. Without groups
// all reach all again.
func (s *Switch) Split(groups ...[]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.ports {
		p.group = 0
	}
	for i, names := range groups {
		for _, name := range names {
			p := s.ports[name]
			if p == nil {
				return fmt.Errorf("split: no port %s", name)
			}
			p.group = i + 1
		}
	}
	return nil
}
