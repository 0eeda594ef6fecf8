package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"keelson/node/bootstrapdata"
	"keelson/node/clusterreset"
	"keelson/node/etcd"
	"keelson/node/etcdsnapshot/s3"
	"keelson/node/file"
	"keelson/node/member"
	"keelson/node/staticpod"
	"keelson/node/supervisorclient"
	"keelson/node/token"
)

// Bounds of finding out about a reset.
const (
	heardWithin = 2 * time.Second  // at start, where everything waits for it
	resetEvery  = 10 * time.Second // while the server runs
	etcdGone    = time.Minute      // the kubelet gives the pod half of it
	apiGone     = 15 * time.Second
	etcdPoll    = 200 * time.Millisecond // nobody tells when a lock is given back
)

// settleReset resets the cluster to this server where the settings say so, and puts this server's data away where the
// cluster was reset without it. A server that runs already finds out by watchReset.
func (s *Server) settleReset(ctx context.Context) error {
	interrupted, err := clusterreset.Interrupted(s.settings.DataDir)
	if err != nil {
		return err
	}
	if s.settings.ClusterReset || interrupted {
		return s.reset(ctx)
	}
	l, err := s.localReset(ctx)
	if err != nil || l.Cluster == 0 || l.Running {
		return err
	}
	known, err := etcd.ReadKnown(s.settings.DataDir)
	if err != nil {
		s.log.Warn("cannot tell which members etcd knew", "error", err)
	}
	ctx, cancel := context.WithTimeout(ctx, heardWithin)
	defer cancel()
	heard := make(chan error)
	var members []string
	for _, m := range known.Members {
		members = append(members, m.ClientURLs...)
	}
	servers := s.supervisors(members)
	for _, server := range servers {
		go func() { heard <- s.followReset(ctx, l, server) }()
	}
	var errs []error
	for range servers {
		errs = append(errs, <-heard)
	}
	if s.rejoined.Load() { // what the others think, before the reset or after it, no longer counts
		return nil
	}
	return errors.Join(errs...)
}

// reset makes the reset that the settings ask for. Which token opens the data is known to nobody but the data: the
// settings may hold the one before a rotation, or this machine's files the one after.
func (s *Server) reset(ctx context.Context) error {
	passwords, err := s.knownPasswords()
	if err != nil {
		return err
	}
	c := s.settings
	p := clusterreset.Params{
		DataDir: c.DataDir, NodeName: c.NodeName, Address: c.NodeIP[0].String(), Restore: c.ClusterResetRestorePath,
		SnapshotDir: s.snapshotDir(), Now: time.Now(), Log: s.log,
	}
	if p.Texts, err = s.tokenTexts(); err != nil {
		return err
	}
	if c.TokenRecover {
		p.Recover = s.recoverReset
	}
	if c.S3.Enabled {
		p.Fetch = s.fetchSnapshot
	}
	s.milestone("resetting the cluster to this server")
	var outcome clusterreset.Outcome
	for _, p.Password = range passwords {
		if outcome, err = clusterreset.Run(ctx, p); !errors.Is(err, bootstrapdata.ErrOtherToken) {
			break
		}
	}
	switch {
	case err != nil:
		return err
	case outcome == clusterreset.Already:
		s.console("the cluster has been reset to this server before; take cluster-reset out of the settings")
	default:
		s.milestone("the cluster is reset to this server; take cluster-reset out of the settings")
	}
	return nil
}

// knownPasswords are the server's passwords that the settings and this machine's files know.
func (s *Server) knownPasswords() ([]token.Secret, error) {
	var all []token.Secret
	if s.settings.Token != "" {
		p, err := token.ServerPassword(token.Secret(s.settings.Token))
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		all = append(all, p)
	}
	p, err := s.ownPassword()
	if err != nil {
		return nil, err
	}
	if p != "" && !slices.Contains(all, p) {
		all = append(all, p)
	}
	if len(all) == 0 {
		return nil, errors.New("reset the cluster: no token is known: set token to the one that was valid when the snapshot was taken")
	}
	return all, nil
}

// tokenTexts are the token as the settings and this machine's files write it: old servers took the text for the
// passphrase of the cluster's record.
func (s *Server) tokenTexts() ([]token.Secret, error) {
	texts := []token.Secret{token.Secret(s.settings.Token)}
	text, err := os.ReadFile(s.server("token"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read token: %w", err)
	}
	return append(texts, token.Secret(strings.TrimSpace(string(text)))), nil
}

// ownPassword is the server's password in this machine's files; empty where there is none.
func (s *Server) ownPassword() (token.Secret, error) {
	users, err := token.LoadPasswd(s.server("cred", "passwd"))
	return token.PasswordsOf(users).Server, err
}

// fetchSnapshot takes a snapshot out of the object store of the settings.
func (s *Server) fetchSnapshot(ctx context.Context, name, path string) error {
	c, err := s.objectStore()
	if err != nil {
		return err
	}
	store, err := s3.Connect(ctx, *c, "")
	if err != nil {
		return err
	}
	return store.Fetch(ctx, name, path)
}

func (s *Server) snapshotDir() string {
	if s.settings.SnapshotDir != "" {
		return s.settings.SnapshotDir
	}
	return s.server("db", "snapshots")
}

// localReset is what this server knows of itself, without asking anybody. etcd need not run.
func (s *Server) localReset(context.Context) (clusterreset.Local, error) {
	var l clusterreset.Local
	id, err := etcd.ReadIdentity(s.settings.DataDir)
	if errors.Is(err, etcd.ErrNoIdentity) {
		return l, nil
	} else if err != nil {
		return l, err
	}
	l.Cluster = id.Cluster
	if l.Epoch, err = clusterreset.LoadEpoch(s.settings.DataDir); err != nil {
		return l, err
	}
	l.Running, err = etcd.Running(s.settings.DataDir)
	return l, err
}

// supervisors are whom to ask about the cluster: the servers of the settings, and the supervisors beside etcd's members,
// whose client URLs are given; never this one.
func (s *Server) supervisors(clientURLs []string) []string {
	var own, all []string
	for _, a := range s.settings.NodeIP {
		own = append(own, supervisorAt(a.String()))
	}
	if s.settings.Server != "" {
		all = append(all, s.settings.Server)
	}
	for _, server := range s.settings.ServerAlternatives {
		if !slices.Contains(own, server) && !slices.Contains(all, server) {
			all = append(all, server)
		}
	}
	for _, client := range clientURLs {
		u, err := url.Parse(client)
		if err != nil || u.Hostname() == "" {
			continue
		}
		if server := supervisorAt(u.Hostname()); !slices.Contains(own, server) && !slices.Contains(all, server) {
			all = append(all, server)
		}
	}
	return all
}

func supervisorAt(host string) string { return "https://" + net.JoinHostPort(host, supervisorPort) }

// hear asks a server for its cluster, and for etcd's members there. It is believed if it shows that cluster's authority
// and takes its token.
func (s *Server) hear(ctx context.Context, server string) (clusterreset.Remote, []supervisorclient.Member, error) {
	client, err := s.askServer(ctx, server)
	if err != nil {
		return clusterreset.Remote{}, nil, err
	}
	members, text, err := client.ClusterInfo(ctx)
	if err != nil || len(text) == 0 {
		return clusterreset.Remote{}, nil, err
	}
	r := clusterreset.Remote{Proven: true}
	if err := json.Unmarshal(text, &r.Info); err != nil {
		return clusterreset.Remote{}, nil, fmt.Errorf("read what %s says of its cluster: %w", server, err)
	}
	return r, members, nil
}

// followReset puts this server's data away if a server of the reset cluster can be heard. Who cannot be heard is no
// error: most starts find nobody there yet.
func (s *Server) followReset(ctx context.Context, l clusterreset.Local, server string) error {
	remote, members, err := s.hear(ctx, server)
	if err != nil {
		s.log.Info("not heard before etcd starts", "server", server, "error", err)
		return nil
	}
	verdict, why := clusterreset.Decide(l, remote)
	switch verdict {
	case clusterreset.Conflict:
		return errors.New(why)
	case clusterreset.Rejoin:
		return s.putAway(members, why)
	}
	return nil
}

// putAway has this server join the cluster that was reset without it. The pods that run on the old data, should the
// kubelet find them, must not start before the new ones are written.
func (s *Server) putAway(members []supervisorclient.Member, why string) error {
	if !s.rejoined.CompareAndSwap(false, true) {
		return nil // another server of that cluster was faster
	}
	if err := errors.Join(s.removePod(staticpod.Etcd), s.removePod(staticpod.APIServer)); err != nil {
		return err
	}
	old, err := member.PutAway(s.settings.DataDir, etcd.NewName(s.settings.NodeName), voting(members), time.Now())
	if err != nil {
		return fmt.Errorf("join the reset cluster: %w", err)
	}
	s.console(fmt.Sprintf("%s: its data is kept as %s, and it joins anew", why, filepath.Base(old)))
	return nil
}

// watchReset ends this server when the cluster is reset without it: the next start joins anew. It looks from before
// etcd serves, because the rest of a cluster that was reset never will.
func (s *Server) watchReset(ctx context.Context) error {
	servers := s.supervisors(s.voters)
	if len(servers) == 0 {
		return nil
	}
	client, err := s.connectEtcd(ctx)
	if err != nil {
		return err
	}
	local := func(ctx context.Context) (clusterreset.Local, error) { return s.servingReset(ctx, client) }
	for _, server := range servers {
		s.background("cluster reset", func(ctx context.Context) error {
			ask := func(ctx context.Context) (clusterreset.Remote, error) {
				r, _, err := s.hear(ctx, server)
				return r, err
			}
			err := clusterreset.Watch(ctx, resetEvery, local, ask, s.log)
			if errors.Is(err, clusterreset.ErrRejoin) {
				err = s.endMember(ctx, err)
			}
			return err
		})
	}
	return nil
}

// servingReset is localReset of a server whose etcd may serve writes with others.
func (s *Server) servingReset(ctx context.Context, kv clientv3.KV) (clusterreset.Local, error) {
	l, err := s.localReset(ctx)
	if err != nil || !l.Running {
		return l, err
	}
	ctx, cancel := context.WithTimeout(ctx, heardWithin)
	defer cancel()
	_, err = kv.Get(ctx, clusterreset.EpochKey)
	l.Quorum = err == nil
	l.Served = time.Now()
	if info, err := os.Stat(s.places.served); err == nil {
		l.Served = info.ModTime()
	}
	return l, nil
}

// noteService remembers when etcd first served since the machine started: a reset before that moment is followed.
func (s *Server) noteService() error {
	if _, err := os.Stat(s.places.served); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(s.places.served), 0o755); err != nil {
		return fmt.Errorf("note etcd's service: %w", err)
	}
	return file.Write(s.places.served, nil, 0o600)
}

// endMember has the pods go that run on data which is to be put away, and returns why joined with what kept them. The
// kubelet asks kube-apiserver about pods that it ends, so that it must not be held; and kube-apiserver goes first,
// which hangs where etcd has gone before it.
func (s *Server) endMember(ctx context.Context, why error) error {
	if s.gate != nil {
		s.gate.Redirect("")
	}
	err := errors.Join(why, s.removePod(staticpod.APIServer))
	s.awaitNoAPI(ctx)
	return errors.Join(err, s.removePod(staticpod.Etcd), s.awaitNoEtcd(ctx))
}

// awaitNoAPI gives kube-apiserver some time to end. Without a majority of etcd it takes all there is.
func (s *Server) awaitNoAPI(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, apiGone)
	defer cancel()
	for listens(ctx, apiAddress) && wait(ctx, etcdPoll) == nil {
	}
}

// awaitNoEtcd returns when nobody has the data open: the next start is to put it away.
func (s *Server) awaitNoEtcd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, etcdGone)
	defer cancel()
	for {
		running, err := etcd.Running(s.settings.DataDir)
		if err != nil || !running {
			return err
		}
		if err := wait(ctx, etcdPoll); err != nil {
			return fmt.Errorf("etcd still runs: %w; restart the machine", err)
		}
	}
}

// finishReset does in the cluster what follows a reset of it.
func (s *Server) finishReset(ctx context.Context) error {
	pending, err := clusterreset.Pending(s.settings.DataDir)
	if err != nil || !pending {
		return err
	}
	return s.persist(ctx, func(ctx context.Context) error {
		return clusterreset.Finish(ctx, s.client, s.settings.DataDir, s.settings.NodeName, s.settings.ClusterReset)
	})
}

// describe is what /db/info tells beside the members.
func (s *Server) describe(ctx context.Context) (any, error) {
	return clusterreset.Describe(ctx, s.etcd)
}

// joinSecrets takes over the cluster's secrets: as a whole, where this server was a member whose data was put away.
// What it has may be of another generation than that of the cluster it comes back to.
func (s *Server) joinSecrets(record bootstrapdata.Data, again bool) ([]string, error) {
	if again {
		return bootstrapdata.Restore(s.server(), record)
	}
	return bootstrapdata.Reconcile(s.server(), record)
}

// knownCA is the authority that this server knows, if any.
func (s *Server) knownCA() ([]byte, error) {
	known, err := os.ReadFile(s.server("tls", "server-ca.crt"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read server CA: %w", err)
	}
	return known, nil
}
