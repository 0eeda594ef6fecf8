package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/kubernetes"

	"keelson/node/etcd"
	"keelson/node/file"
	"keelson/node/member"
)

// began is what this server remembers of how its member was started last. A member with data reads neither, but is told
// the same ever after: another text would be another pod.
type began struct {
	Initial etcd.Initial
	Alone   bool
}

// startMember settles who this server is among etcd's members: the first, one that joins, or the one it was. Under a
// supervisor that starts again etcd still runs, and is who it was.
func (s *Server) startMember(ctx context.Context) error {
	exists, err := s.clusterExists()
	if err != nil {
		return err
	}
	last, err := s.loadBegan()
	if err != nil {
		return err
	}
	c := s.memberConfig()
	if _, err := etcd.ReadKnown(c.Member.DataDir); errors.Is(err, etcd.ErrInUse) {
		s.member = c.Member
		s.member.Initial, s.member.Alone = last.Initial, last.Alone
		s.member.Name, err = etcd.EnsureName(c.Member.DataDir, c.Node)
		return err
	}
	params, voters, err := member.Start(ctx, c)
	if err != nil {
		return err
	}
	if params.Initial == (etcd.Initial{}) {
		params.Initial = last.Initial
	}
	s.member, s.voters, s.learner = params, voters, !exists && len(voters) > 0
	return s.saveBegan(began{Initial: params.Initial, Alone: params.Alone})
}

func (s *Server) beganPath() string { return filepath.Join(etcd.Dir(s.settings.DataDir), "began.json") }

func (s *Server) loadBegan() (began, error) {
	var b began
	data, err := os.ReadFile(s.beganPath())
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	} else if err != nil {
		return b, fmt.Errorf("read how etcd was started: %w", err)
	}
	if err := json.Unmarshal(data, &b); err != nil {
		return b, fmt.Errorf("read how etcd was started: %s: %w; remove the file, and etcd's pod is made anew", s.beganPath(), err)
	}
	return b, nil
}

func (s *Server) saveBegan(b began) error {
	data, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("remember how etcd was started: %w", err)
	}
	_, err = file.Ensure(s.beganPath(), append(data, '\n'), 0o600)
	return err
}

func (s *Server) memberConfig() member.Config {
	c := member.Config{
		Node: s.settings.NodeName,
		Member: etcd.Params{
			DataDir:       s.settings.DataDir,
			Address:       s.settings.NodeIP[0].String(),
			ExposeMetrics: s.settings.EtcdExposeMetrics,
			Arguments:     s.settings.Etcd.Args,
		},
		Files:    s.etcdFiles(),
		Endpoint: s.etcdEndpoint(),
		Log:      s.log,
	}
	if s.settings.Server != "" {
		c.Others = s.etcdMembers
	}
	return c
}

// etcdFiles is how this server's own clients reach etcd.
func (s *Server) etcdFiles() etcd.Connection {
	return etcd.Connection{
		Endpoints: []string{s.etcdEndpoint()},
		CAFile:    s.server("tls", "etcd", "server-ca.crt"),
		CertFile:  s.server("tls", "etcd", "client.crt"),
		KeyFile:   s.server("tls", "etcd", "client.key"),
	}
}

// watchMember ends this server when its member is removed: the next start joins anew. The member's pod goes first,
// which would otherwise fail for ever.
func (s *Server) watchMember(context.Context) error {
	s.background("membership", func(ctx context.Context) error {
		err := member.Watch(ctx, s.memberConfig())
		if errors.Is(err, member.ErrRemoved) {
			err = s.endMember(ctx, err)
		}
		return err
	})
	return nil
}

// followNodes keeps etcd's membership in order while this member leads: learners are promoted, members whose Node was
// deleted are removed.
func (s *Server) followNodes(context.Context) error { return s.runController(s.client) }

func (s *Server) runController(nodes kubernetes.Interface) error {
	controller, err := member.NewController(member.ControllerConfig{
		Node: s.settings.NodeName, Client: s.etcd, Nodes: nodes, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.background("membership controller", controller.Run)
	return nil
}
