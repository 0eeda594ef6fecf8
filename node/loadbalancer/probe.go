package loadbalancer

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	probeInterval = 2 * time.Second
	probeTimeout  = 3 * time.Second
	// probeGap is the least time between two probes of one server, however much doubt there is.
	probeGap = 100 * time.Millisecond
)

// prober knows whom to wake when a server is to be asked at once.
type prober struct {
	interval, timeout time.Duration
	mu                sync.Mutex
	kicks             map[string]chan struct{}
}

func newProber(cfg Config) *prober {
	p := &prober{interval: cfg.ProbeInterval, timeout: cfg.ProbeTimeout, kicks: map[string]chan struct{}{}}
	if p.interval <= 0 {
		p.interval = probeInterval
	}
	if p.timeout <= 0 {
		p.timeout = probeTimeout
	}
	return p
}

// kick has the server asked now; without a probe for it, it does nothing.
func (p *prober) kick(server string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case p.kicks[server] <- struct{}{}: // a nil channel is never ready
	default:
	}
}

// probeAll keeps one goroutine asking each server of the list.
func (b *Balancer) probeAll(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	running := map[string]context.CancelFunc{}
	for {
		servers, better := b.owner.servers()
		wanted := map[string]bool{}
		for _, s := range servers {
			wanted[s.address] = true
			if running[s.address] != nil {
				continue
			}
			one, cancel := context.WithCancel(ctx)
			running[s.address] = cancel
			kick := b.prober.enter(s.address)
			group.Go(func() { b.probeOne(one, s.address, kick) })
		}
		for address, cancel := range running {
			if !wanted[address] {
				cancel()
				b.prober.leave(address)
				delete(running, address)
			}
		}
		select {
		case <-ctx.Done():
			for _, cancel := range running {
				cancel()
			}
			return
		case <-better:
		}
	}
}

func (p *prober) enter(server string) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	kick := make(chan struct{}, 1)
	p.kicks[server] = kick
	return kick
}

func (p *prober) leave(server string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.kicks, server)
}

// probeOne asks one server at intervals and when kicked, until ctx is done.
func (b *Balancer) probeOne(ctx context.Context, address string, kick <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-kick:
		case <-timer.C:
		}
		asked, cancel := context.WithTimeout(ctx, b.prober.timeout)
		err := b.cfg.Probe(asked, address)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			b.tell(event{kind: healthy, server: address})
		case !errors.Is(err, ErrUnknown):
			b.log.Debug("probe", "server", address, "error", err)
			b.tell(event{kind: unhealthy, server: address})
		}
		wait(ctx, probeGap)
		// A fifth more or less, so that nodes started together do not ask together.
		timer.Reset(b.prober.interval*4/5 + rand.N(b.prober.interval*2/5))
	}
}
