package server

import (
	"context"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"keelson/node/etcd"
	"keelson/node/etcdsnapshot"
	"keelson/node/gate"
	"keelson/node/loadbalancer"
	"keelson/node/sequence"
	"keelson/node/status"
)

// startStatus tells `node status` of this start, from its first step on.
func (s *Server) startStatus(steps []sequence.Step) {
	s.live.Follow(steps, time.Now())
	if serve := status.Open(s.places.status, s.status, s.log); serve != nil {
		s.background("status", serve)
	}
}

// status is what `node status` shows.
func (s *Server) status(ctx context.Context) status.Report {
	settings := s.cfg.Settings
	r := status.Files{DataDir: settings.DataDir, Role: status.Server, Settings: &settings, Notes: status.DefaultNotes, Version: s.cfg.Version}.Report(time.Now())
	s.live.Fill(ctx, &r)
	if s.rejoined.Load() {
		if r.Reset == nil {
			r.Reset = new(status.Reset)
		}
		r.Reset.Rejoined = true
	}
	r.Conclude()
	return r
}

// tellBalancer has a load balancer shown.
func (s *Server) tellBalancer(name string, b *loadbalancer.Balancer) {
	s.live.Add(func(_ context.Context, r *status.Report) {
		r.Balancers = append(r.Balancers, status.BalancerOf(name, b))
	})
}

// tellGate has shown where this machine's own clients of kube-apiserver are led.
func (s *Server) tellGate(g *gate.Gate) {
	s.live.Add(func(_ context.Context, r *status.Report) {
		to := status.Backend{Address: "nowhere", State: "HELD"}
		if target := g.Target(); target != "" {
			to = status.Backend{Address: target, State: "ACTIVE", Connections: g.Connections()}
		}
		r.Balancers = append(r.Balancers, status.Balancer{Name: "kube-apiserver", Address: gateAddress, Servers: []status.Backend{to}})
	})
}

// tellMember has etcd asked for this server's place in it.
func (s *Server) tellMember(client *clientv3.Client, endpoint string) {
	s.live.Add(func(ctx context.Context, r *status.Report) {
		if r.Etcd == nil {
			r.Etcd = new(status.Etcd)
		}
		if err := askMember(ctx, client, endpoint, r.Etcd); err != nil {
			r.Etcd.Error = err.Error()
		}
	})
}

// askMember fills in what this server's own member says. Its list of members is asked without a majority: it is most of
// use where there is none.
func askMember(ctx context.Context, api etcd.Asked, endpoint string, e *status.Etcd) error {
	own, err := etcd.State(ctx, api, endpoint)
	if err != nil {
		return err
	}
	e.Member, e.Cluster = status.ID(own.Header.MemberId), status.ID(own.Header.ClusterId)
	e.Role, e.Leader = status.MemberRole(own.IsLearner), own.Leader == own.Header.MemberId
	list, err := api.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return err
	}
	e.Members = nil
	for _, m := range list.Members {
		e.Members = append(e.Members, status.Member{Name: m.Name, ID: status.ID(m.ID), Role: status.MemberRole(m.IsLearner), Leader: m.ID == own.Leader})
	}
	slices.SortFunc(e.Members, func(a, b status.Member) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// tellSnapshots has shown how the last snapshot of this process went, beside the last that lies on the disk.
func (s *Server) tellSnapshots(last func() etcdsnapshot.Outcome) {
	s.live.Add(func(_ context.Context, r *status.Report) {
		o := last()
		if o.At.IsZero() {
			return
		}
		if r.Snapshot == nil {
			r.Snapshot = new(status.Snapshot)
		}
		if o.Name != "" && o.Name == r.Snapshot.Name {
			r.Snapshot.Remote = o.Remote
		}
		if o.Error != "" {
			r.Snapshot.Failed, r.Snapshot.Error = o.At, o.Error
		}
	})
}

// tellRotation has shown until when the token before the last rotation is honoured.
func (s *Server) tellRotation(overlap func() (time.Time, bool)) {
	s.live.Add(func(_ context.Context, r *status.Report) {
		if until, ok := overlap(); ok {
			r.TokenBefore = until
		}
	})
}
