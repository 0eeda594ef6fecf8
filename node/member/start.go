package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"keelson/node/etcd"
)

// joinFile, in the folder of a member that has no data yet, lists the voting members that it is to join.
const joinFile = "join"

// Start settles who this server is among etcd's members, before etcd starts, and returns its parameters with name,
// first membership and Alone filled in, and the voting members to give to Promote. An etcd that an earlier supervisor
// left running stays as it is: the parameters come out the same. Only where data must be put away it must be gone.
//
// A server with data whose member id the others do not have (they removed it, or were restored from a snapshot without
// it) has its data put away, is added anew and starts from nothing. When nobody answers, as after a power cut for
// all, it starts with what it has: if it turns out to be removed, Watch tells.
func Start(ctx context.Context, c Config) (etcd.Params, []string, error) {
	p := c.Member
	has, err := etcd.HasData(p.DataDir)
	if err != nil {
		return p, nil, err
	}
	if has {
		return c.resume(ctx)
	}
	if p.Name, err = etcd.EnsureName(p.DataDir, c.Node); err != nil {
		return p, nil, err
	}
	endpoints, err := ToJoin(p.DataDir)
	if err != nil {
		return p, nil, err
	}
	if c.Others == nil && len(endpoints) == 0 {
		p.Alone = true
		p.Initial = etcd.Initial{Cluster: p.InitialCluster(), State: "new"}
		return p, nil, nil
	}
	if c.Others != nil {
		named, err := c.Others(ctx)
		if err != nil && len(endpoints) == 0 {
			return p, nil, fmt.Errorf("ask the join server for etcd's members: %w", err)
		}
		endpoints = union(named, endpoints)
	}
	c.Member = p
	p.Initial, err = Join(ctx, c, endpoints)
	return p, endpoints, err
}

// resume goes on with the data that is there, or without it.
func (c Config) resume(ctx context.Context) (etcd.Params, []string, error) {
	p := c.Member
	var err error
	if p.Name, err = etcd.EnsureName(p.DataDir, c.Node); err != nil {
		return p, nil, err
	}
	id, err := etcd.ReadIdentity(p.DataDir)
	if errors.Is(err, etcd.ErrNoIdentity) {
		// etcd itself knows best what to say about a log that it cannot read.
		c.Log.Warn("cannot tell which etcd member this is", "error", err)
		return p, nil, nil
	} else if err != nil {
		return p, nil, err
	}
	known, err := etcd.ReadKnown(p.DataDir)
	if errors.Is(err, etcd.ErrInUse) {
		known, err = c.running(ctx)
	}
	if err != nil {
		c.Log.Warn("cannot tell which members etcd knew", "error", err)
	}
	if p.Initial, err = etcd.ReadInitial(p.DataDir, p.InitialCluster()); err != nil {
		return p, nil, err
	}
	p.Alone = len(known.Members) == 1 && known.Members[0].ID == id.Member
	endpoints := c.candidates(ctx, known, id.Member)
	answers := c.askAll(ctx, endpoints)
	switch verdict(answers, id) {
	case present:
		return p, endpoints, c.sameAddress(members(answers, id), known, id)
	case absent:
		return c.again(ctx, p, responsive(answers))
	case divided:
		return p, nil, fmt.Errorf("etcd member %x: %w; stop the servers that shall not go on, then start this one again (nothing was changed)", id.Member, ErrTwoClusters)
	}
	if slices.Contains(known.Removed, id.Member) {
		return p, nil, fmt.Errorf("etcd member %x: %w, and no other server answers (asked: %v); start them, or give one as server: in the configuration (nothing was changed)",
			id.Member, ErrRemoved, endpoints)
	}
	return p, endpoints, c.sameAddress(nil, known, id)
}

// running asks the own member, which an earlier supervisor started.
func (c Config) running(ctx context.Context) (etcd.Known, error) {
	a := c.askOne(ctx, c.endpoint())
	var known etcd.Known
	for _, m := range a.members {
		known.Members = append(known.Members, etcd.Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.IsLearner})
	}
	return known, a.err
}

// again puts the data away and adds this server as a new member. The new folder knows whom to join from its first
// moment: a power cut here must not let this server think that it is the first of a cluster.
func (c Config) again(ctx context.Context, p etcd.Params, endpoints []string) (etcd.Params, []string, error) {
	p.Name = etcd.NewName(c.Node)
	// The list is looked at first: a name or address that is taken must not cost the data.
	if err := c.mayJoin(ctx, p, endpoints); err != nil {
		return p, nil, fmt.Errorf("%w, and cannot join it again: %w", ErrRemoved, err)
	}
	old, err := PutAway(p.DataDir, p.Name, endpoints, time.Now())
	if err != nil {
		return p, nil, err
	}
	c.Log.Warn("this server was removed from the etcd cluster: its data is put away and it joins again", "data", old)
	c.Member, p.Alone = p, false
	p.Initial, err = Join(ctx, c, endpoints)
	return p, endpoints, err
}

// PutAway puts a member's data aside as db/etcd-old-<unix>, and has it be the member name that no cluster knows yet and
// that joins the voting members behind endpoints. It refuses while etcd runs.
func PutAway(dataDir, name string, endpoints []string, now time.Time) (old string, err error) {
	list, err := json.Marshal(endpoints)
	if err != nil {
		return "", fmt.Errorf("render join file: %w", err)
	}
	return etcd.Replace(dataDir, map[string][]byte{"name": []byte(name), joinFile: list}, now)
}

func (c Config) mayJoin(ctx context.Context, p etcd.Params, endpoints []string) error {
	for _, a := range c.askAll(ctx, endpoints) {
		if a.err != nil {
			continue
		}
		if _, err := place(a.members, c.Node, p.Name, p.PeerURL()); err != nil && !errors.Is(err, errLearnerFirst) {
			return err
		}
	}
	return nil
}

// sameAddress refuses a member of several whose address is another: the others would not find it. One that is alone
// tells itself its new address once it runs (etcd.Ready).
func (c Config) sameAddress(now []*etcdserverpb.Member, known etcd.Known, id etcd.Identity) error {
	urls, others := []string(nil), len(now)
	for _, m := range now {
		if m.ID == id.Member {
			urls = m.PeerURLs
		}
	}
	if now == nil {
		others = len(known.Members)
		for _, m := range known.Members {
			if m.ID == id.Member {
				urls = m.PeerURLs
			}
		}
	}
	if len(urls) == 0 || slices.Contains(urls, c.Member.PeerURL()) {
		return nil
	}
	if others == 1 {
		c.Log.Warn("the address of this only member has changed", "was", urls, "is", c.Member.PeerURL())
		return nil
	}
	return fmt.Errorf("etcd member %x is known to %d others as %s, and this machine is %s: %w; give it its old address back, or delete the Node %s and start this server again (it then joins anew)",
		id.Member, others-1, urls[0], c.Member.PeerURL(), ErrAddressChanged, c.Node)
}

// candidates are all that might know whether this server is a member.
func (c Config) candidates(ctx context.Context, known etcd.Known, self uint64) []string {
	var endpoints []string
	if c.Others != nil {
		ctx, cancel := context.WithTimeout(ctx, 2*reachWithin)
		defer cancel()
		named, err := c.Others(ctx)
		if err != nil {
			c.Log.Info("the join server is not there; going by what etcd knew", "error", err)
		}
		endpoints = named
	}
	for _, m := range known.Members {
		if m.ID != self && !m.IsLearner {
			endpoints = union(endpoints, m.ClientURLs)
		}
	}
	// A join server may name this machine itself.
	return slices.DeleteFunc(endpoints, func(url string) bool { return url == c.Member.ClientURL() })
}

// ToJoin lists the client URLs of the members that this one joins because its own data was put away: nobody, where it
// was not.
func ToJoin(dataDir string) ([]string, error) {
	path := filepath.Join(etcd.Dir(dataDir), joinFile)
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read join file: %w", err)
	}
	return parseJoin(path, content)
}

func parseJoin(path string, content []byte) ([]string, error) {
	var endpoints []string
	if err := json.Unmarshal(content, &endpoints); err != nil {
		return nil, fmt.Errorf("read join file %s: %w; remove it if server: is set in the configuration", path, err)
	}
	for i, e := range endpoints {
		if _, err := authority(e); err != nil {
			return nil, fmt.Errorf("read join file %s: entry %s: %w; remove it if server: is set in the configuration", path, strconv.Itoa(i), err)
		}
	}
	return endpoints, nil
}

func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, one := range b {
		if !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
}
