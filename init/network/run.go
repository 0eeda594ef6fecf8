package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"keelson/init/netconfig"
)

// runner is the state of one Run. Its loop alone touches it.
type runner struct {
	*Network
	links    map[int]*link
	reports  chan report
	workers  sync.WaitGroup
	ready    bool
	rendered string
	made     []string // names of the links that we made
	broken   string   // why one of them is missing
}

// report is what a DHCP client has to tell: a lease, its end (nil), or why
// there is none.
type report struct {
	index  int
	family int // 4 or 6
	lease  *lease
	err    error
}

// ErrReplaced, as the cause that ends the context of Run, says that another
// plan comes in force: what this one put on the links is taken back.
var ErrReplaced = errors.New("the network gets another plan")

// Run brings links up and follows them until ctx ends. Addresses stay when it
// returns, so that services can still say goodbye.
func (n *Network) Run(ctx context.Context) error {
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	r := &runner{Network: n, links: map[int]*link{}, reports: make(chan report)}
	defer func() {
		if errors.Is(context.Cause(outer), ErrReplaced) {
			r.takeBack()
		}
	}()
	defer r.workers.Wait()
	defer cancel()
	if n.cfg.Plan.Disabled {
		r.explain([]string{"network-config says disabled"})
		<-ctx.Done()
		return nil
	}
	messages, err := r.subscribe(ctx)
	if err != nil {
		return err
	}
	if lo, err := netlink.LinkByName("lo"); err == nil {
		if err := netlink.LinkSetUp(lo); err != nil {
			return fmt.Errorf("set link lo up: %w", err)
		}
	}
	if err := r.makeLinks(); err != nil {
		r.cfg.Logger.Error("network: make links", "error", err)
		r.broken = oneLine(err.Error())
	}
	// Subscribed first, listed second: nothing falls in between.
	if err := r.scan(ctx); err != nil {
		return err
	}
	for {
		r.settle()
		select {
		case <-ctx.Done():
			return nil
		case m, ok := <-messages:
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("network: the kernel closed the rtnetlink socket")
			}
			r.handle(ctx, m)
		case rep := <-r.reports:
			r.report(rep)
		}
	}
}

// scan looks at every link there is.
func (r *runner) scan(ctx context.Context) error {
	all, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range all {
		r.update(ctx, l)
	}
	return nil
}

func (r *runner) handle(ctx context.Context, m message) {
	switch {
	case m.lost:
		if err := r.scan(ctx); err != nil {
			r.cfg.Logger.Warn("network: look at links again", "error", err)
		}
	case m.gone:
		if l := r.links[m.index]; l != nil {
			l.stop()
			delete(r.links, m.index)
			r.cfg.Logger.Info("network: link is gone", "link", l.name)
		}
	case m.link:
		// The list of one link instead of the message: it is always the newest.
		if l, err := netlink.LinkByIndex(m.index); err == nil {
			r.update(ctx, l)
		}
	}
	l := r.links[m.index]
	if l == nil {
		return
	}
	if m.raFlags != nil {
		l.managed = *m.raFlags&(raManaged|raOther) != 0
		if stateful := *m.raFlags&raManaged != 0; stateful != l.stateful {
			l.stateful = stateful
			l.stop6() // the client that runs asks for the wrong thing
		}
		r.start(ctx, l)
	}
	if m.rdnss != nil {
		l.raDNS = m.rdnss
	}
}

// update meets a link that is new or has changed.
func (r *runner) update(ctx context.Context, nl netlink.Link) {
	attrs := nl.Attrs()
	l := r.links[attrs.Index]
	if l == nil {
		plan, ok := r.choose(nl)
		if !ok {
			return
		}
		l = &link{index: attrs.Index, name: attrs.Name, plan: plan, order: len(r.links)}
		r.links[attrs.Index] = l
		if err := errors.Join(l.configure(nl), r.makeVLANs(l)); err != nil {
			l.failure = err.Error()
			r.cfg.Logger.Error("network: configure link", "link", l.name, "error", err)
		} else {
			r.cfg.Logger.Info("network: link is up", "link", l.name, "plan", plan.ID)
		}
		if plan.Member {
			if err := r.enslave(l); err != nil {
				l.failure = err.Error()
				r.cfg.Logger.Error("network: join links", "link", l.name, "error", err)
			}
		}
		if fresh, err := netlink.LinkByIndex(l.index); err == nil {
			attrs = fresh.Attrs()
		}
	}
	l.name = attrs.Name
	carrier := attrs.RawFlags&unix.IFF_LOWER_UP != 0 && attrs.RawFlags&unix.IFF_UP != 0
	if carrier == l.carrier {
		return
	}
	l.carrier = carrier
	r.cfg.Logger.Info("network: carrier", "link", l.name, "up", carrier)
	if carrier {
		r.start(ctx, l)
	} else {
		l.stop()
	}
}

// choose finds the part of the plan for a link. Patterns are for hardware
// alone: the pod network makes links by the dozen, which are not ours.
func (r *runner) choose(nl netlink.Link) (netconfig.Link, bool) {
	attrs := nl.Attrs()
	if attrs.Flags&net.FlagLoopback != 0 || attrs.EncapType != "ether" {
		return netconfig.Link{}, false
	}
	hardware := nl.Type() == "device"
	if len(r.cfg.Plan.Links) == 0 {
		return netconfig.Link{ID: "default", DHCP4: true, AcceptRA: true}, hardware
	}
	for _, p := range r.cfg.Plan.Links {
		if (hardware || p.Match.Name == attrs.Name) && p.Match.Fits(attrs.Name, attrs.HardwareAddr.String(), driver(attrs.Name)) {
			return p, true
		}
	}
	return netconfig.Link{}, false
}

// start runs the DHCP clients that a link with carrier wants and lacks.
func (r *runner) start(ctx context.Context, l *link) {
	if !l.carrier {
		return
	}
	if l.plan.DHCP4 && l.cancel4 == nil {
		l.cancel4 = r.work(ctx, func(ctx context.Context) { r.client4(ctx, l.index, l.name, l.plan) })
	}
	if (l.plan.DHCP6 || l.managed && l.plan.AcceptRA) && l.cancel6 == nil {
		stateful := l.plan.DHCP6 || l.stateful
		l.cancel6 = r.work(ctx, func(ctx context.Context) { r.client6(ctx, l.index, l.name, stateful) })
	}
}

func (r *runner) work(ctx context.Context, f func(context.Context)) context.CancelFunc {
	ctx, cancel := context.WithCancel(ctx)
	r.workers.Go(func() { f(ctx) })
	return cancel
}

// send hands a report to the loop.
func (r *runner) send(ctx context.Context, rep report) {
	select {
	case r.reports <- rep:
	case <-ctx.Done():
	}
}

// oneLine is for the console: no line breaks, no terminal codes.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return '?'
		}
		return c
	}, s)
}

func (r *runner) report(rep report) {
	l := r.links[rep.index]
	if l == nil {
		return
	}
	if rep.err != nil {
		l.failure = oneLine(rep.err.Error()) // it may hold a server's own words
		r.cfg.Logger.Warn("network: DHCP", "link", l.name, "family", rep.family, "error", rep.err)
		return
	}
	l.failure = ""
	slot := &l.lease4
	if rep.family == 6 {
		slot = &l.lease6
	}
	old := *slot
	if rep.lease != nil && rep.family == 4 {
		if l.plan.DHCP4Overrides.IgnoreRoutes {
			rep.lease.routes = nil
		}
		if l.plan.DHCP4Overrides.IgnoreMTU {
			rep.lease.mtu = 0
		}
	}
	*slot = rep.lease
	if err := l.applyLease(old, rep.lease); err != nil {
		l.failure = err.Error()
		r.cfg.Logger.Error("network: apply lease", "link", l.name, "error", err)
		return
	}
	if rep.lease == nil {
		r.cfg.Logger.Warn("network: lease is over", "link", l.name, "family", rep.family)
	} else if old == nil || !slices.Equal(old.addrs, rep.lease.addrs) {
		r.cfg.Logger.Info("network: lease", "link", l.name, "addresses", rep.lease.addrs, "valid", rep.lease.valid)
	}
}
