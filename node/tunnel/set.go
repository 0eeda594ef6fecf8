package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// SetConfig is what the tunnels of a Set have in common; the fields are those of Config.
type SetConfig struct {
	TLS   func() (*tls.Config, error)
	Allow func(network, address string) bool
	// OnState is told as Config.OnState is, with the server: what the client load balancer takes as health. After
	// SetServers without a server nothing more is told of it.
	OnState          func(server string, up bool)
	Log              *slog.Logger
	Silence          time.Duration
	Retry, RetryMost time.Duration
}

// Set keeps one tunnel to each server of a list that changes.
type Set struct {
	config SetConfig
	change chan struct{} // holds one while servers differs from what runs

	mu      sync.Mutex
	servers []string
	states  map[string]bool
}

// NewSet makes a set without servers.
func NewSet(c SetConfig) (*Set, error) {
	if c.TLS == nil {
		return nil, errors.New("tunnel: TLS must be set")
	}
	if c.OnState == nil {
		c.OnState = func(string, bool) {}
	}
	c.Log = orDiscard(c.Log)
	return &Set{config: c, change: make(chan struct{}, 1), states: map[string]bool{}}, nil
}

// SetServers replaces the list. Tunnels to servers that stay are left alone. A list with an address that cannot be one
// is refused whole, and the old one kept.
func (s *Set) SetServers(servers []string) error {
	for _, server := range servers {
		if _, _, err := ParseAddress(server); err != nil {
			return fmt.Errorf("tunnel: servers: %w", err)
		}
	}
	list := slices.Clone(servers)
	slices.Sort(list)
	list = slices.Compact(list)
	s.mu.Lock()
	s.servers = list
	maps.DeleteFunc(s.states, func(server string, _ bool) bool { return !slices.Contains(list, server) })
	s.mu.Unlock()
	select {
	case s.change <- struct{}{}:
	default:
	}
	return nil
}

// States tells of each server of which something is known whether its tunnel is up.
func (s *Set) States() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.states)
}

// Run keeps the tunnels until ctx ends; none is left when it returns.
func (s *Set) Run(ctx context.Context) error {
	type running struct {
		cancel context.CancelFunc
		done   chan struct{}
	}
	clients := map[string]running{}
	defer func() {
		for _, r := range clients {
			r.cancel()
		}
		for _, r := range clients {
			<-r.done
		}
	}()
	for {
		s.mu.Lock()
		list := s.servers
		s.mu.Unlock()
		for server, r := range clients {
			if !slices.Contains(list, server) {
				r.cancel()
				<-r.done
				delete(clients, server)
			}
		}
		for _, server := range list {
			if _, ok := clients[server]; ok {
				continue
			}
			client, err := NewClient(s.client(server))
			if err != nil {
				return err
			}
			one, cancel := context.WithCancel(ctx)
			r := running{cancel: cancel, done: make(chan struct{})}
			clients[server] = r
			go func() {
				defer close(r.done)
				_ = client.Run(one) // ends with one, without an error
			}()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.change:
		}
	}
}

func (s *Set) client(server string) Config {
	c := s.config
	return Config{
		Server: server, TLS: c.TLS, Allow: c.Allow, Log: c.Log, Silence: c.Silence, Retry: c.Retry, RetryMost: c.RetryMost,
		OnState: func(up bool) {
			s.mu.Lock()
			member := slices.Contains(s.servers, server)
			if member {
				s.states[server] = up
			}
			s.mu.Unlock()
			if member {
				c.OnState(server, up)
			}
		},
	}
}
