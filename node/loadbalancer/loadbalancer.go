// Package loadbalancer is a node's own way to the cluster's servers: a TCP listener on loopback that passes each
// connection to the server that is known to work, so that kubelet, kube-proxy and the supervisor's clients have one
// address that outlives any server.
//
// It fails over rather than balances: one server is active, the others stand by, and when the active one dies its
// connections end at once. A connection for which no server answers is held for a while, as package gate does, since
// a refused client backs off for up to 30 s. It never looks into a connection: TLS stays end to end.
//
// The servers come from node/agent (or node/server), which learns them from the cluster; whether one works is told by
// the tunnels (Healthy), by a probe, and by each dial. The list is kept in a state file across restarts. States and
// file are those of k3s pkg/agent/loadbalancer, so that RKE2's tools read them.
package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// maxConnections bounds the clients of one listener; a node has some dozens.
	maxConnections = 1024
	// holdTime is how long a client is kept waiting for a server.
	holdTime = 30 * time.Second
	// dialTimeout and keepAlive are upstream's.
	dialTimeout = 10 * time.Second
	keepAlive   = 30 * time.Second
	// patience is how long a dial may take before the next server is tried beside it; it leaves room for one lost
	// packet, which TCP repeats after 1 s.
	patience = 2500 * time.Millisecond
	// retry is the time between two tries of one held client on behalf of all.
	retry = 500 * time.Millisecond
	// acceptPause is the time to wait when accept fails, as it does without file descriptors.
	acceptPause = 100 * time.Millisecond
	tick        = time.Second
)

// ErrUnknown is what a Probe returns when its answer says nothing about the server.
var ErrUnknown = errors.New("health unknown")

// Config is what a Balancer needs. Only Listen is required.
type Config struct {
	Name      string // for the log, such as rke2-agent-load-balancer
	Listen    string // loopback address, such as 127.0.0.1:6444 or [::1]:6444
	Default   string // host:port of the configured server; stays a last resort. Empty: the first one learnt
	StateFile string // where the list is kept; empty: nowhere

	// Probe asks one server whether it works, at intervals and when there is doubt. It must return when ctx ends.
	// Nil: only tunnels and dials tell.
	Probe         func(ctx context.Context, server string) error
	ProbeInterval time.Duration // default 2 s, spread by a fifth
	ProbeTimeout  time.Duration // default 3 s

	HoldTime       time.Duration // default 30 s
	MaxConnections int           // default 1024; a client above it is turned away
	Log            *slog.Logger
}

// Balancer is the listener and what it knows.
type Balancer struct {
	cfg      Config
	log      *slog.Logger
	listener net.Listener
	owner    *owner
	prober   *prober
	slots    chan struct{}
	scout    chan struct{} // held by the one client that dials for all that are held
	dirty    chan struct{}
	patience time.Duration
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
}

// New opens the listener, so that clients may be started as soon as it returns, and recalls the list of servers.
func New(cfg Config) (*Balancer, error) {
	host, _, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("load balancer address %q: %w", cfg.Listen, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("load balancer address %q: not a loopback address", cfg.Listen)
	}
	if cfg.Default != "" {
		if err := checkAddress(cfg.Default); err != nil {
			return nil, fmt.Errorf("load balancer default: %w", err)
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.HoldTime <= 0 {
		cfg.HoldTime = holdTime
	}
	if cfg.MaxConnections <= 0 {
		cfg.MaxConnections = maxConnections
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("open load balancer: %w", err)
	}
	log := cfg.Log.With("loadbalancer", cfg.Name)
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}
	b := &Balancer{
		cfg: cfg, log: log, listener: listener, owner: newOwner(cfg.Default, log), prober: newProber(cfg),
		slots: make(chan struct{}, cfg.MaxConnections), scout: make(chan struct{}, 1), dirty: make(chan struct{}, 1),
		patience: patience, dial: dialer.DialContext,
	}
	if cfg.StateFile != "" {
		b.recall()
	}
	return b, nil
}

// Address is where clients connect to, host:port.
func (b *Balancer) Address() string { return b.listener.Addr().String() }

// SetServers takes over the cluster's list of servers, host:port each, the preferred first. An empty list is
// ignored; an address that cannot be dialled is left out with a word in the log. It may be called at any time.
func (b *Balancer) SetServers(list []string) {
	var good []string
	for _, address := range list {
		if err := checkAddress(address); err != nil {
			b.log.Warn("server left out", "error", err)
		} else if !slices.Contains(good, address) {
			good = append(good, address)
		}
	}
	if len(good) > maxServers {
		b.log.Warn("servers left out: too many", "servers", len(good), "most", maxServers)
		good = good[:maxServers]
	}
	if len(good) == 0 {
		return
	}
	b.tell(event{kind: listed, list: good})
	if b.cfg.StateFile != "" {
		select {
		case b.dirty <- struct{}{}:
		default:
		}
	}
}

// Healthy tells that the server's tunnel came up or went down. It holds until the next call for that
// server, or until a probe of it has an answer.
func (b *Balancer) Healthy(server string, ok bool) {
	if ok {
		b.tell(event{kind: up, server: server})
	} else {
		b.tell(event{kind: down, server: server})
	}
}

// Server is what is known of one server.
type Server struct {
	Address     string
	State       State
	Connections int
}

// Servers is what is known now, in the order in which a new connection would try them.
func (b *Balancer) Servers() []Server {
	list, _ := b.owner.servers()
	all := make([]Server, 0, len(list))
	for _, s := range list {
		all = append(all, Server{s.address, s.state, s.connections})
	}
	return all
}

// Run passes connections on until ctx is done, then closes all of them and returns. It is called once.
func (b *Balancer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { b.listener.Close() })()
	group.Go(func() { b.tickAll(ctx) })
	if b.cfg.StateFile != "" {
		group.Go(func() { b.remember(ctx) })
	}
	if b.cfg.Probe != nil {
		group.Go(func() { b.probeAll(ctx) })
	}
	for {
		conn, err := b.listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("load balancer %s: %w", b.cfg.Name, err)
			}
			b.log.Warn("accept", "error", err)
			wait(ctx, acceptPause)
			continue
		}
		select {
		case b.slots <- struct{}{}:
		default:
			b.log.Warn("client turned away: too many connections", "most", b.cfg.MaxConnections)
			conn.Close()
			continue
		}
		group.Go(func() {
			defer func() { <-b.slots }()
			defer conn.Close()
			b.serve(ctx, conn)
		})
	}
}

// tell lets an event happen and has servers asked that it casts doubt on.
func (b *Balancer) tell(e event) { b.doubt(b.owner.tell(e)) }

// doubt has a server asked at once that is not known well: new, or back after it failed.
func (b *Balancer) doubt(moves []move) {
	for _, m := range moves {
		if m.to == Recovering || m.to == Unchecked {
			b.prober.kick(m.server)
		}
	}
}

// tickAll lets the seconds pass.
func (b *Balancer) tickAll(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			b.tell(event{kind: ticked})
		}
	}
}

// wait lasts d, or until ctx is done.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
