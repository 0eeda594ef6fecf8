package etcd

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Prober asks members whether they serve: what a load balancer before them needs to know. A member without a leader,
// as one that is cut off from the others, takes connections and answers nothing. RKE2 asks the supervisor beside the
// member for /ping instead (k3s pkg/etcd/etcdproxy.go), which says nothing of etcd.
type Prober struct {
	files Connection

	mu      sync.Mutex
	clients map[string]*clientv3.Client // by address
}

// NewProber takes the files of c; the members are named with each question.
func NewProber(c Connection) *Prober {
	return &Prober{files: c, clients: map[string]*clientv3.Client{}}
}

// Probe asks the member at host:port.
func (p *Prober) Probe(ctx context.Context, address string) error {
	client, err := p.client(address)
	if err != nil {
		return err
	}
	state, err := State(ctx, client, "https://"+address)
	switch {
	case err != nil:
		p.forget(address) // the next question reads the certificates anew
		return fmt.Errorf("ask etcd member at %s: %w", address, err)
	case state.IsLearner:
		return fmt.Errorf("etcd member at %s: %w", address, ErrLearner)
	case state.Leader == 0:
		return fmt.Errorf("etcd member at %s: %w", address, ErrNoLeader)
	}
	return nil
}

// client is kept between questions: a handshake every two seconds would be most of the work.
func (p *Prober) client(address string) (*clientv3.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.clients[address]; c != nil {
		return c, nil
	}
	c := p.files
	c.Endpoints = []string{"https://" + address}
	client, err := NewClient(context.Background(), c)
	if err == nil {
		p.clients[address] = client
	}
	return client, err
}

func (p *Prober) forget(address string) {
	p.mu.Lock()
	client := p.clients[address]
	delete(p.clients, address)
	p.mu.Unlock()
	if client != nil {
		_ = client.Close()
	}
}

// Keep forgets the members that are not of the list.
func (p *Prober) Keep(addresses []string) {
	wanted := map[string]bool{}
	for _, a := range addresses {
		wanted[a] = true
	}
	var gone []string
	p.mu.Lock()
	for a := range p.clients {
		if !wanted[a] {
			gone = append(gone, a)
		}
	}
	p.mu.Unlock()
	for _, a := range gone {
		p.forget(a)
	}
}

// Addresses takes host and port out of members' client URLs; what is none is left out.
func Addresses(clientURLs []string) []string {
	var all []string
	for _, text := range clientURLs {
		u, err := url.Parse(text)
		if err != nil || u.Hostname() == "" || u.Port() == "" {
			continue
		}
		all = append(all, net.JoinHostPort(u.Hostname(), u.Port()))
	}
	return all
}
