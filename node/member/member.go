// Package member makes this server one of etcd's members and keeps the membership in order: it joins as a learner,
// is promoted as soon as it has caught up, comes back by itself when it was removed, and follows the Nodes.
//
// It never starts or stops etcd, and writes only what Start puts in place of a removed member's data. Its input is
// etcd itself (its members, and the files of this one through node/etcd) and the cluster's Nodes. node/server uses
// it: Start before etcd's pod is written, Promote until it votes, Watch and Controller as long as it runs.
package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"keelson/node/etcd"
)

// Config says who this member is and how it reaches the others.
type Config struct {
	Node   string      // its Kubernetes name
	Member etcd.Params // data folder and address count; Start fills in the rest
	Files  etcd.Connection

	// Others asks the join server for the client URLs of voting members, its own first (/db/info). Nil: there is no
	// join server, and a server without data makes a new cluster.
	Others func(ctx context.Context) ([]string, error)

	// Endpoint is where this machine reaches its own member; empty: https://127.0.0.1:2379.
	Endpoint string

	Log *slog.Logger
}

func (c Config) endpoint() string {
	if c.Endpoint != "" {
		return c.Endpoint
	}
	return "https://127.0.0.1:2379"
}

// What stands in the way of a membership. Each says what to do.
var (
	ErrDuplicateName    = errors.New("duplicate node name found, please use a unique name for this node")
	ErrDuplicateAddress = errors.New("duplicate address found, please use a unique address for this node")
	ErrAddressChanged   = errors.New("the address of this member of several has changed")
	ErrRemoved          = etcd.ErrRemoved
	ErrTwoClusters      = errors.New("the other servers disagree about this member: some belong to another cluster")
	ErrMembersChanged   = errors.New("the membership changed before this member had started: join again")
)

const (
	callTimeout = 5 * time.Second         // of one question to etcd
	reachWithin = 1500 * time.Millisecond // a machine that is up answers within
	pollEvery   = 100 * time.Millisecond  // while a join or a promotion is under way
)

// connect returns a client of endpoints; the caller closes it.
func (c Config) connect(ctx context.Context, endpoints ...string) (*clientv3.Client, error) {
	connection := c.Files
	connection.Endpoints = endpoints
	return etcd.NewClient(ctx, connection)
}

// pause waits for d and up to half as long again at random, so that servers which failed together do not come back
// together.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// hostOf is the address in a URL; "" where there is none.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// authority is the host and port of a URL.
func authority(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", fmt.Errorf("read client URL: %w", err)
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		return "", fmt.Errorf("read client URL %s: %w", text, err)
	}
	return u.Host, nil
}

// clientURLs are the members' own client URLs, without those of learners and of member self.
func clientURLs(members []*etcdserverpb.Member, self uint64) []string {
	var urls []string
	for _, m := range members {
		if m.ID != self && !m.IsLearner {
			urls = append(urls, m.ClientURLs...)
		}
	}
	return urls
}

// Voters lists the client URLs of the members that vote, with a quorum behind it.
func Voters(ctx context.Context, client *clientv3.Client) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := client.MemberList(ctx)
	if err != nil {
		return nil, fmt.Errorf("list etcd members: %w", err)
	}
	return clientURLs(list.Members, 0), nil
}
