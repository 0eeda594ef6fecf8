package member

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"keelson/node/etcd"
)

// answer is what one member says about the membership, with its quorum behind it.
type answer struct {
	endpoint string
	cluster  uint64
	self     uint64 // the member that answers
	members  []*etcdserverpb.Member
	err      error
}

// opinion is what the answers come to.
type opinion int

const (
	unknown opinion = iota // nobody answered
	present                // this server is a member
	absent                 // all who answered say that it is none
	divided                // some say so, some the other
)

// verdict judges answers. A member of another cluster does not know this one either: the connection has proven that it
// has this cluster's authority, so it is this cluster, restored from a snapshot.
func verdict(answers []answer, id etcd.Identity) opinion {
	yes, no := 0, 0
	for _, a := range answers {
		switch {
		case a.err != nil:
		case a.knows(id):
			yes++
		default:
			no++
		}
	}
	switch {
	case yes > 0 && no > 0:
		return divided
	case yes > 0:
		return present
	case no > 0:
		return absent
	}
	return unknown
}

func (a answer) knows(id etcd.Identity) bool {
	return a.cluster == id.Cluster && has(a.members, id.Member)
}

// members is the list of those who know this member.
func members(answers []answer, id etcd.Identity) []*etcdserverpb.Member {
	for _, a := range answers {
		if a.err == nil && a.knows(id) {
			return a.members
		}
	}
	return nil
}

func responsive(answers []answer) []string {
	var endpoints []string
	for _, a := range answers {
		if a.err == nil {
			endpoints = append(endpoints, a.endpoint)
		}
	}
	return endpoints
}

// askAll asks all at once, and waits only for machines that take connections.
func (c Config) askAll(ctx context.Context, endpoints []string) []answer {
	results := make(chan answer, len(endpoints))
	for _, endpoint := range endpoints {
		go func() { results <- c.askOne(ctx, endpoint) }()
	}
	answers := make([]answer, 0, len(endpoints))
	for range endpoints {
		a := <-results
		if a.err != nil {
			c.Log.Debug("no answer about the membership", "endpoint", a.endpoint, "error", a.err)
		}
		answers = append(answers, a)
	}
	return answers
}

var errNoQuorum = errors.New("it has no leader")

func (c Config) askOne(ctx context.Context, endpoint string) answer {
	a := answer{endpoint: endpoint}
	fail := func(err error) answer {
		a.err = fmt.Errorf("ask %s: %w", endpoint, err)
		return a
	}
	host, err := authority(endpoint)
	if err != nil {
		return fail(err)
	}
	// The client would wait for a server that refuses.
	dialer := net.Dialer{Timeout: reachWithin}
	conn, err := dialer.DialContext(ctx, "tcp", host)
	if err != nil {
		return fail(err)
	}
	_ = conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*reachWithin)
	defer cancel()
	client, err := c.connect(ctx, endpoint)
	if err != nil {
		return fail(err)
	}
	defer client.Close()
	state, err := etcd.State(ctx, client, endpoint)
	if err != nil {
		return fail(err)
	}
	if state.Leader == 0 || state.IsLearner {
		return fail(errNoQuorum)
	}
	list, err := client.MemberList(ctx) // linearizable: a quorum stands behind it
	if err != nil {
		return fail(err)
	}
	a.cluster, a.self, a.members = list.Header.ClusterId, list.Header.MemberId, list.Members
	return a
}

// lost tells why a member that does not start never will.
func (c Config) lost(ctx context.Context, endpoints []string) error {
	answers := c.askAll(ctx, endpoints)
	id, err := etcd.ReadIdentity(c.Member.DataDir)
	if err == nil {
		if verdict(answers, id) == absent {
			return fmt.Errorf("etcd member %x: %w", id.Member, ErrRemoved)
		}
		return nil
	}
	if c.Member.Initial.State != "existing" {
		return nil
	}
	for _, a := range answers {
		if a.err == nil && !sameURLs(initial(a.members, c.Member.Name, c.Member.PeerURL()), c.Member.Initial) {
			return ErrMembersChanged
		}
	}
	return nil
}

// sameURLs compares as etcd does: a member that has started since has a name now.
func sameURLs(a, b etcd.Initial) bool {
	urls := func(i etcd.Initial) []string {
		var all []string
		for one := range strings.SplitSeq(i.Cluster, ",") {
			_, url, _ := strings.Cut(one, "=")
			all = append(all, url)
		}
		slices.Sort(all)
		return all
	}
	return slices.Equal(urls(a), urls(b))
}
