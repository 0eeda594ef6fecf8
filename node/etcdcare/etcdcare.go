// Package etcdcare keeps etcd usable while it runs: it clears the alarm that stops all writes when the database is
// full, once there is room, says loudly when a member's data is corrupt, and gives unused space back to the disk.
//
// Each server looks after its own member's alarm. Space is given back by the leader's server alone, to one member at
// a time, itself last, and never while a member is missing, learning or alarmed: a member answers nothing meanwhile,
// and two of three are no quorum. RKE2 does neither while it runs. The package never changes who is a member and never
// deletes a key. node/server runs it when the member serves.
package etcdcare

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"keelson/node/etcd"
)

// API is what of etcd's client is needed.
type API interface {
	etcd.Asked
	AlarmList(ctx context.Context) (*clientv3.AlarmResponse, error)
	AlarmDisarm(ctx context.Context, m *clientv3.AlarmMember) (*clientv3.AlarmResponse, error)
	Defragment(ctx context.Context, endpoint string) (*clientv3.DefragmentResponse, error)
	Compact(ctx context.Context, rev int64, opts ...clientv3.CompactOption) (*clientv3.CompactResponse, error)
}

// Config of the care.
type Config struct {
	API      API
	Endpoint string        // this server's own member
	Every    time.Duration // 0: DefaultEvery
	MinSize  int64         // 0: DefaultMinSize
	Log      *slog.Logger
	// Corrupt is told of each member whose data is corrupt, by name, and with none when that is over. May be nil.
	Corrupt func(members []string)
}

const (
	// DefaultEvery is how often the members are looked at.
	DefaultEvery = 10 * time.Minute
	// DefaultMinSize is the least database that is worth a pause (bootstrap-defrag-threshold-megabytes: the same).
	DefaultMinSize = 100 << 20

	askTimeout    = 5 * time.Second
	defragTimeout = 5 * time.Minute
)

// Care is one server's.
type Care struct{ Config }

// New checks the configuration.
func New(c Config) (*Care, error) {
	if c.API == nil || c.Log == nil || c.Endpoint == "" {
		return nil, errors.New("etcd care: API, Endpoint and Log must be set")
	}
	if c.Every <= 0 {
		c.Every = DefaultEvery
	}
	if c.MinSize <= 0 {
		c.MinSize = DefaultMinSize
	}
	return &Care{c}, nil
}

// Run looks at once and then every so often, until ctx ends. What cannot be done now is tried again.
func (c *Care) Run(ctx context.Context) error {
	tick := time.NewTicker(c.Every)
	defer tick.Stop()
	for {
		if err := c.Once(ctx); err != nil && ctx.Err() == nil {
			c.Log.Warn("etcd care", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Once looks at every member and does the one thing that is most needed.
func (c *Care) Once(ctx context.Context) error {
	v, err := c.look(ctx)
	if err != nil {
		return err
	}
	var corrupt []string
	for _, m := range v.members {
		if m.corrupt {
			corrupt = append(corrupt, m.name)
			c.Log.Error("etcd member is corrupt: its data differs from the others'; replace it: delete its Node, empty its disk and let it join anew",
				"member", m.name, "id", fmt.Sprintf("%x", m.id))
		}
	}
	if c.Corrupt != nil {
		c.Corrupt(corrupt)
	}
	switch a := decide(v, c.MinSize); a.kind {
	case makeRoom:
		return c.makeRoom(ctx, a.member, v.revision)
	case defragment:
		return c.defragment(ctx, a.member)
	}
	return nil
}

// look asks every member. One that does not answer is in the view as such.
func (c *Care) look(ctx context.Context) (view, error) {
	own, err := c.own(ctx)
	if err != nil {
		return view{}, fmt.Errorf("look at etcd: %w", err)
	}
	v := view{self: own.Header.MemberId, leader: own.Leader, revision: own.Header.Revision}
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	list, err := c.API.MemberList(ask)
	if err != nil {
		return view{}, fmt.Errorf("list etcd members: %w", err)
	}
	alarms, err := c.API.AlarmList(ask)
	if err != nil {
		return view{}, fmt.Errorf("list etcd alarms: %w", err)
	}
	for _, m := range list.Members {
		s := member{id: m.ID, name: m.Name, learner: m.IsLearner}
		if m.ID == v.self {
			s.endpoint = c.Endpoint
		} else if len(m.ClientURLs) > 0 {
			s.endpoint = m.ClientURLs[0]
		}
		if s.endpoint != "" {
			if status, err := c.status(ctx, s.endpoint); err == nil {
				s.healthy = status.Leader != 0
				s.size, s.used, s.quota = status.DbSize, status.DbSizeInUse, status.DbSizeQuota
			}
		}
		for _, a := range alarms.Alarms {
			if a.MemberID == m.ID {
				s.full = s.full || a.Alarm == etcdserverpb.AlarmType_NOSPACE
				s.corrupt = s.corrupt || a.Alarm == etcdserverpb.AlarmType_CORRUPT
			}
		}
		v.members = append(v.members, s)
	}
	return v, nil
}

func (c *Care) own(ctx context.Context) (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return etcd.State(ctx, c.API, c.Endpoint)
}

// status asks a member that was just seen in the list.
func (c *Care) status(ctx context.Context, endpoint string) (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return c.API.Status(ctx, endpoint)
}

// makeRoom frees what history holds, gives it back, and lets writes through if that was enough.
func (c *Care) makeRoom(ctx context.Context, m member, revision int64) error {
	c.Log.Warn("etcd's database is full: writes are refused; making room", "member", m.name, "size", m.size, "in_use", m.used, "quota", m.quota)
	// kube-apiserver lists anew what it watched before; it could not write meanwhile anyway. Another server that was
	// faster has compacted as far.
	if _, err := c.API.Compact(ctx, revision, clientv3.WithCompactPhysical()); err != nil && !isCompacted(err) {
		return fmt.Errorf("compact etcd: %w", err)
	}
	if err := c.defragment(ctx, m); err != nil {
		return err
	}
	status, err := c.status(ctx, m.endpoint)
	if err != nil {
		return fmt.Errorf("look at etcd: %w", err)
	}
	if !roomy(status.DbSize, status.DbSizeQuota) {
		return fmt.Errorf("etcd's database stays full: %d of %d bytes are in use after compaction; delete objects, or raise quota-backend-bytes with etcd-arg", status.DbSize, status.DbSizeQuota)
	}
	if _, err := c.API.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: m.id, Alarm: etcdserverpb.AlarmType_NOSPACE}); err != nil {
		return fmt.Errorf("disarm no-space alarm: %w", err)
	}
	c.Log.Warn("etcd takes writes again", "member", m.name, "size", status.DbSize)
	return nil
}

func (c *Care) defragment(ctx context.Context, m member) error {
	ctx, cancel := context.WithTimeout(ctx, defragTimeout)
	defer cancel()
	start := time.Now()
	if _, err := c.API.Defragment(ctx, m.endpoint); err != nil {
		return fmt.Errorf("defragment etcd member %s: %w", m.name, err)
	}
	c.Log.Info("etcd member defragmented", "member", m.name, "was", m.size, "in_use", m.used, "dur", time.Since(start).Round(time.Millisecond))
	return nil
}
