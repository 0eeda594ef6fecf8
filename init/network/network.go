package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"keelson/init/netconfig"
)

// ErrNotReady says that no address with a default route came up in time; the
// error that wraps it tells of each link what it waits for.
var ErrNotReady = errors.New("network is not ready")

// Config says what to bring up.
type Config struct {
	Plan       netconfig.Plan
	Hostname   string // told to DHCP servers
	ResolvConf string // DefaultResolvConf on a machine
	Logger     *slog.Logger
}

// DefaultResolvConf is where resolvers look (resolv.conf(5)).
const DefaultResolvConf = "/etc/resolv.conf"

// Status is what the network knows now.
type Status struct {
	Addresses   []netip.Prefix // global ones of managed links
	Nameservers []netip.Addr
	Search      []string
	NTP         []string // time servers by DHCP
	Hostname    string   // given by DHCP, "" if none
}

// Network holds the links of the machine.
type Network struct {
	cfg   Config
	ready chan struct{}

	mu      sync.Mutex // guards what follows
	status  Status
	waiting []string // what each link waits for
}

// New checks the settings; the machine is touched by Run.
func New(cfg Config) (*Network, error) {
	if cfg.Logger == nil {
		return nil, errors.New("network: no logger")
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = DefaultResolvConf
	}
	return &Network{cfg: cfg, ready: make(chan struct{}), waiting: []string{"network is not started"}}, nil
}

// Wait returns when one global address and a default route of its family are
// usable, or after bound. Run must be running.
func (n *Network) Wait(ctx context.Context, bound time.Duration) error {
	timer := time.NewTimer(bound)
	defer timer.Stop()
	select {
	case <-n.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		n.mu.Lock()
		defer n.mu.Unlock()
		return fmt.Errorf("%w after %s: %s", ErrNotReady, bound, strings.Join(n.waiting, "; "))
	}
}

// Status returns a copy of what is known.
func (n *Network) Status() Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.status
	s.Addresses = slices.Clone(s.Addresses)
	s.Nameservers = slices.Clone(s.Nameservers)
	s.Search = slices.Clone(s.Search)
	s.NTP = slices.Clone(s.NTP)
	return s
}
