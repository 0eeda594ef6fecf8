package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/client-go/kubernetes"

	"keelson/node/bootstrapdata"
	"keelson/node/etcd"
	"keelson/node/loadbalancer"
	"keelson/node/member"
	"keelson/node/nodeobject"
	"keelson/node/staticpod"
	"keelson/node/status"
	"keelson/node/supervisorclient"
	"keelson/node/trust"
	"keelson/node/tunnel"
)

// Load balancers of servers that lack a part, with RKE2's names (k3s pkg/etcd/etcdproxy.go, pkg/agent/loadbalancer).
const (
	etcdBalancer = "rke2-etcd-server-load-balancer"
	apiBalancer  = "rke2-api-server-agent-load-balancer"
)

// briefly is how long a client of kube-apiserver is held while none answers. Longer would keep etcd's own pod from
// starting: a kubelet that finds volumes of an earlier boot asks for its Node between two rounds of mounting.
const briefly = 500 * time.Millisecond

// membersEvery is how often a server without etcd asks who etcd's members are: there is no watch for them.
const membersEvery = 10 * time.Second

// settleRoles has what earlier settings left follow the present ones: pods of parts that this server has no more must
// not start again, and its etcd member leaves the others in order. What runs already is for the next boot, since
// nothing would end it: the kubelet takes a pod away only when kube-apiserver has told it all of its pods.
func (s *Server) settleRoles(ctx context.Context) error {
	c := s.settings
	_, err := os.Stat(s.places.started)
	running := err == nil
	for _, part := range []struct {
		component, key string
		disabled       bool
	}{
		{staticpod.Etcd, "disable-etcd", c.DisableEtcd},
		{staticpod.APIServer, "disable-apiserver", c.DisableAPIServer},
		{staticpod.ControllerManager, "disable-controller-manager", c.DisableControllerManager},
		{staticpod.Scheduler, "disable-scheduler", c.DisableScheduler},
		{staticpod.CloudController, "disable-apiserver", c.DisableAPIServer},
	} {
		if !part.disabled {
			continue
		}
		_, err := os.Stat(staticpod.Server{DataDir: c.DataDir}.ManifestPath(part.component))
		if err == nil && running && (part.component == staticpod.Etcd || part.component == staticpod.APIServer) {
			return fmt.Errorf("%s is set, and %s runs here: restart the machine", part.key, part.component)
		}
		if err := s.removePod(part.component); err != nil {
			return err
		}
	}
	if c.DisableEtcd {
		return s.leaveEtcd(ctx)
	}
	if err := os.Remove(s.etcdList()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the list of etcd's members: %w", err)
	}
	return nil
}

// leaveEtcd takes this server's member out of etcd, and waits where etcd cannot let it go yet.
func (s *Server) leaveEtcd(ctx context.Context) error {
	said := ""
	for {
		old, err := member.Leave(ctx, s.memberConfig())
		if err == nil && old != "" {
			s.console("this server has left etcd, and its data is kept as " + filepath.Base(old))
		}
		if !errors.Is(err, member.ErrNoMajority) {
			return err
		}
		status.Reason(ctx, err)
		if text := err.Error(); text != said {
			said = text
			s.console("waiting to leave etcd: " + text)
		}
		if err := wait(ctx, lastAsk); err != nil {
			return err
		}
	}
}

// etcdList is the state file of the load balancer before etcd. It is there when a server without etcd has joined.
func (s *Server) etcdList() string { return s.server("etc", etcdBalancer+".json") }

// rejoinCluster is joinCluster of a server without etcd that has joined before. It takes over what has changed while it
// was away, if the join server is there: etcd's members, and the record if the cluster was reset to an older one. All
// else comes from etcd, to which the remembered list leads.
func (s *Server) rejoinCluster(ctx context.Context) error {
	ask, cancel := context.WithTimeout(ctx, heardWithin)
	defer cancel()
	client, err := s.askAnyServer(ask)
	if err == nil {
		err = s.takeCluster(ask, client, false)
	}
	if err == nil || ctx.Err() != nil || errors.As(err, new(*bootstrapdata.ErrConflict)) {
		return err
	}
	s.log.Warn("the join server is not there; going on with what this server knows", "server", s.settings.Server, "error", err)
	s.console("the join server gives nothing, and this server goes on with what it knows: " + err.Error())
	return nil
}

// takeCluster takes over what the join server tells: the cluster's secrets, and for a server without etcd who has it.
func (s *Server) takeCluster(ctx context.Context, client *supervisorclient.Client, again bool) error {
	plain, err := persistently(ctx, s, client.ServerBootstrap)
	var answer *supervisorclient.Error
	if errors.As(err, &answer) && answer.Code == 400 {
		return fmt.Errorf("%w; a server joins by one that has etcd: set server to such a one", err)
	}
	if err != nil {
		return fmt.Errorf("read its bootstrap data: %w", err)
	}
	if s.settings.DisableEtcd {
		members, err := persistently(ctx, s, client.DBInfo)
		if err != nil {
			return fmt.Errorf("read its list of etcd's members: %w", err)
		}
		s.voters = voting(members)
	}
	record, err := bootstrapdata.Decode(plain)
	if err != nil {
		return err
	}
	written, err := s.joinSecrets(record, again)
	if s.settings.DisableEtcd && errors.Is(err, bootstrapdata.ErrOlder) {
		s.console("the cluster was reset without this server, which takes its secrets over")
		written, err = s.joinSecrets(record, true)
	}
	if err != nil {
		return err
	}
	s.log.Info("joining", "server", client.Server(), "generation", record.Generation(), "written", len(written))
	return nil
}

// openEtcdBalancer is a server's own etcd where it has none: the address is the same, and leads to the members that
// vote. Their certificates hold for it, since each is a server's that has a member there.
func (s *Server) openEtcdBalancer(context.Context) error {
	prober := etcd.NewProber(s.etcdFiles())
	balancer, err := loadbalancer.New(loadbalancer.Config{
		Name: etcdBalancer, Listen: s.places.etcd, StateFile: s.etcdList(), Probe: prober.Probe, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.etcds = balancer
	s.tellBalancer(etcdBalancer, balancer)
	s.background(etcdBalancer, func(ctx context.Context) error {
		defer prober.Keep(nil)
		return balancer.Run(ctx)
	})
	balancer.SetServers(etcd.Addresses(s.voters))
	return nil
}

// awaitOthersEtcd connects to the others' members, returns when they serve, and follows who they are from then on.
func (s *Server) awaitOthersEtcd(ctx context.Context) error {
	client, err := s.connectEtcd(ctx)
	if err != nil {
		return err
	}
	said := ""
	list := etcd.Addresses(s.voters)
	for {
		next, err := member.Voters(ctx, client)
		if err == nil {
			list = next
			break
		}
		status.Reason(ctx, err)
		if text := err.Error(); text != said {
			said = text
			s.log.Warn("waiting for etcd", "error", err)
		}
		if err := wait(ctx, firstAsk); err != nil {
			return err
		}
	}
	s.useEtcd(client)
	s.background("etcd members", func(ctx context.Context) error {
		for {
			s.etcds.SetServers(etcd.Addresses(list))
			if wait(ctx, membersEvery) != nil {
				return nil
			}
			if next, err := member.Voters(ctx, client); err == nil {
				list = next
			} else {
				s.log.Debug("list of etcd's members", "error", err)
			}
		}
	})
	return nil
}

// openAPIBalancer is a server's own kube-apiserver where it has none. The kubelet may start before one is known, which
// is so on the first server of a cluster that begins with etcd alone.
func (s *Server) openAPIBalancer(context.Context) (err error) {
	s.balancer, err = loadbalancer.New(loadbalancer.Config{
		Name: apiBalancer, Listen: s.places.api, StateFile: s.agent("etc", apiBalancer+".json"),
		Probe: loadbalancer.Serving(s.server("tls", "server-ca.crt"), "/readyz"), HoldTime: briefly, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.background(apiBalancer, s.balancer.Run)
	s.tellBalancer(apiBalancer, s.balancer)
	s.lines, err = tunnel.NewSet(tunnel.SetConfig{TLS: s.nodeTLS, Log: s.log, OnState: func(server string, up bool) {
		if host, _, err := net.SplitHostPort(server); err == nil {
			s.balancer.Healthy(net.JoinHostPort(host, apiPort), up)
		}
	}})
	if err != nil {
		return err
	}
	s.background("tunnels", s.lines.Run)
	return nil
}

// nodeTLS is how this machine's node shows itself to other servers, read for each tunnel anew.
func (s *Server) nodeTLS() (*tls.Config, error) {
	ca, err := os.ReadFile(s.server("tls", "server-ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read server CA: %w", err)
	}
	return trust.Access{CA: ca}.TLS(func() (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(s.agent("client-kubelet.crt"), s.agent("client-kubelet.key"))
		return &cert, err
	}), nil
}

// followAPIServers learns where kube-apiservers are from etcd, where they publish it.
func (s *Server) followAPIServers(context.Context) error {
	s.background("kube-apiservers", func(ctx context.Context) error {
		waiting := false
		for range s.store.Changes(ctx, member.AddressesKey) {
			list, err := member.Addresses(ctx, s.etcd)
			switch {
			case err != nil && ctx.Err() == nil:
				s.log.Warn("where kube-apiservers are", "error", err)
			case err == nil && len(list) > 0:
				s.setAPIServers(list)
			case err == nil && !waiting:
				waiting = true
				s.console(fmt.Sprintf("waiting for a server with a control plane to join at %s", supervisorAt(s.settings.NodeIP[0].String())))
			}
		}
		return nil
	})
	return nil
}

// setAPIServers takes a list of kube-apiservers. A supervisor is wherever one of them is.
func (s *Server) setAPIServers(list []string) {
	s.mu.Lock()
	s.apis = list
	s.mu.Unlock()
	s.log.Info("kube-apiservers", "apiservers", list)
	s.balancer.SetServers(list)
	var supervisors []string
	for _, server := range list {
		if host, _, err := net.SplitHostPort(server); err == nil {
			supervisors = append(supervisors, net.JoinHostPort(host, supervisorPort))
		}
	}
	if err := s.lines.SetServers(slices.Compact(supervisors)); err != nil {
		s.log.Warn("tunnels keep their servers", "error", err)
	}
}

// markRoles puts this server's roles on its Node, and takes those off that it has no more.
func (s *Server) markRoles(m *nodeobject.Marks) {
	if s.settings.DisableAPIServer {
		m.Without = append(m.Without, nodeobject.LabelControlPlane)
	} else {
		m.Labels[nodeobject.LabelControlPlane] = "true"
	}
	if s.settings.DisableEtcd {
		m.Without = append(m.Without, nodeobject.LabelEtcd, nodeobject.AnnotationEtcdName, nodeobject.AnnotationEtcdAddrs)
		return
	}
	m.Labels[nodeobject.LabelEtcd] = "true"
	m.Annotations[nodeobject.AnnotationEtcdName], m.Annotations[nodeobject.AnnotationEtcdAddrs] = s.member.Name, s.member.Address
}

// controlMembers is followNodes of a server without kube-apiserver, from before there is one anywhere: learners are
// promoted and members that stall evicted without it, and Nodes are followed once it is there.
func (s *Server) controlMembers(context.Context) error {
	config, err := s.restConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	return s.runController(client)
}
