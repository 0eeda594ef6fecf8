package clusterreset

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"
)

// Local is what a server with data knows of itself.
type Local struct {
	Cluster uint64 // etcd.ReadIdentity; 0: this server has no data
	Epoch   Epoch
	Running bool      // etcd has been started on the data
	Quorum  bool      // and has a leader
	Served  time.Time // when it first had one since the machine started; the zero time: not yet
}

// Remote is what the server behind the join URL says.
type Remote struct {
	// Proven says that it showed a certificate of this cluster's CA and took this cluster's server token. What
	// anybody else says is not heard.
	Proven bool
	Info   Info
}

// Verdict is what to do with the data.
type Verdict int

const (
	// Keep the data: start with it, or go on.
	Keep Verdict = iota
	// Rejoin: the cluster was reset without this server. Its data is to be put away (member.PutAway), and it joins anew.
	Rejoin
	// Split: the cluster was reset, but this server is in a part of the old one that has served writes since before.
	// Only its next start follows the reset, so that nobody's live cluster ends on another's word. One that came up
	// after the reset, because the servers started at once, is such a next start: what it has taken since is lost.
	Split
	// Conflict: two resets did not know of each other, and nobody can tell which one counts.
	Conflict
)

// Decide says what a server does about its data, and why.
func Decide(l Local, r Remote) (Verdict, string) {
	remote, err := strconv.ParseUint(r.Info.Cluster, 16, 64)
	switch {
	case l.Cluster == 0:
		return Keep, "there is no data"
	case !r.Proven:
		return Keep, "no server of the cluster has been heard"
	case err != nil || remote == 0:
		return Keep, "the server to join does not tell its cluster: it is none of this version"
	case remote == l.Cluster:
		return Keep, "the server to join is in the same cluster"
	case r.Info.Epoch == l.Epoch:
		return Keep, "the server to join is in another cluster, but no reset lies between"
	case r.Info.Epoch.Number < l.Epoch.Number:
		return Keep, "the server to join has the state before the reset that this one has followed"
	case r.Info.Epoch.Number == l.Epoch.Number:
		return Conflict, fmt.Sprintf("this server and the one to join were each reset (%s, %s) and neither knows of the other; stop the one that shall not be kept, and start it with an empty disk",
			l.Epoch.ID, r.Info.Epoch.ID)
	case l.Running && l.Quorum && l.Served.Unix() < r.Info.Epoch.Number:
		return Split, fmt.Sprintf("the cluster was reset (epoch %d), and this server still serves the old one with others; restart it to have it put its data aside and join the reset cluster", r.Info.Epoch.Number)
	default:
		return Rejoin, fmt.Sprintf("the cluster was reset (epoch %d) without this server", r.Info.Epoch.Number)
	}
}

// ErrRejoin ends a server that must start again, put its data aside and join.
var ErrRejoin = errors.New("the cluster was reset without this server: starting again to join it")

// Watch compares this server with the one behind its join URL every so often, for a reset that comes while it runs,
// or was not heard of when it started. It returns ErrRejoin, or nil when ctx ends.
func Watch(ctx context.Context, every time.Duration, local func(context.Context) (Local, error), ask func(context.Context) (Remote, error), log *slog.Logger) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	told := Keep
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		remote, err := ask(ctx)
		if err != nil {
			continue // the join target may be down for days
		}
		own, err := local(ctx)
		if err != nil {
			log.Warn("compare with the server to join", "error", err)
			continue
		}
		verdict, why := Decide(own, remote)
		switch {
		case verdict == Rejoin:
			return fmt.Errorf("%w: %s", ErrRejoin, why)
		case verdict != told && verdict != Keep:
			log.Error("cluster reset", "problem", why)
		}
		told = verdict
	}
}
