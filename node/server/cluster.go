package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/etcdstore"
	"keelson/node/clusterreset"
	"keelson/node/endpoints"
	"keelson/node/etcd"
	"keelson/node/member"
	"keelson/node/mirror"
	"keelson/node/nodeobject"
	"keelson/node/readiness"
	"keelson/node/systempods"
	"keelson/node/token"
)

// etcdEndpoint is this server's own etcd.
func (s *Server) etcdEndpoint() string { return "https://" + s.places.etcd }

// awaitEtcd connects to the member and returns when it serves.
func (s *Server) awaitEtcd(ctx context.Context) error {
	client, err := s.connectEtcd(ctx)
	if err != nil {
		return err
	}
	s.tellMember(client, s.etcdEndpoint())
	if len(s.voters) > 0 {
		err := member.Promote(ctx, s.memberConfig(), s.voters)
		if errors.Is(err, member.ErrRemoved) {
			return s.endMember(ctx, err)
		} else if err != nil {
			return err
		}
	}
	if err := etcd.Ready(ctx, client, s.etcdEndpoint(), s.member.Name, s.member.PeerURL()); err != nil {
		return err
	}
	if _, err := clusterreset.Adopt(ctx, client, s.settings.DataDir); err != nil {
		return err
	}
	if err := s.noteService(); err != nil {
		return err
	}
	s.useEtcd(client)
	if !s.learner { // whose kube-apiserver has no pod yet
		close(s.patient)
	}
	return nil
}

// connectEtcd makes a client of this server's own etcd that lasts as long as the server does. Nothing is asked yet.
func (s *Server) connectEtcd(ctx context.Context) (*clientv3.Client, error) {
	client, err := etcd.NewClient(context.WithoutCancel(ctx), s.etcdFiles())
	if err != nil {
		return nil, err
	}
	s.background("etcd client", func(ctx context.Context) error {
		<-ctx.Done()
		return client.Close()
	})
	return client, nil
}

func (s *Server) useEtcd(client *clientv3.Client) {
	s.etcd, s.store = client, etcdstore.New(client)
	s.milestone("etcd ready")
}

// saveBootstrap puts what a joining server needs into etcd, or brings this server's files in line with what is there.
func (s *Server) saveBootstrap(ctx context.Context) error {
	written, err := bootstrapdata.Sync(ctx, s.store, s.passwords.Server, s.server())
	if err != nil {
		return err
	}
	if written = s.needRestart(written); len(written) > 0 {
		return fmt.Errorf("the cluster's record replaced %s; starting again with them", strings.Join(written, ", "))
	}
	return nil
}

// bootstrap answers a joining server, which has just proven the password.
func (s *Server) bootstrap(ctx context.Context, password token.Secret) ([]byte, error) {
	data, err := bootstrapdata.Load(ctx, s.store, password)
	if err != nil {
		return nil, err
	}
	return data.Encode()
}

// awaitAPIServer returns when kube-apiserver serves, and opens the gate to it.
func (s *Server) awaitAPIServer(ctx context.Context) error {
	probe, err := s.readinessConfig()
	if err != nil {
		return err
	}
	if err := readiness.Wait(ctx, probe); err != nil {
		return err
	}
	config, err := s.restConfig()
	if err != nil {
		return err
	}
	if s.client, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	close(s.ready)
	s.milestone("apiserver ready")
	return nil
}

// readinessConfig is how this server's own kube-apiserver is asked whether it serves.
func (s *Server) readinessConfig() (readiness.Config, error) {
	config, err := s.restConfig()
	if err != nil {
		return readiness.Config{}, err
	}
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		return readiness.Config{}, fmt.Errorf("load supervisor certificate: %w", err)
	}
	return readiness.Config{URL: "https://" + apiAddress, TLS: tls}, nil
}

// restConfig is the supervisor's own way into the cluster.
func (s *Server) restConfig() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", s.server("cred", "supervisor.kubeconfig"))
	if err != nil {
		return nil, fmt.Errorf("load supervisor kubeconfig: %w", err)
	}
	config.UserAgent = "keelson-node/" + s.cfg.Version
	return config, nil
}

// markNode puts RKE2's labels and annotations on the Node, and those of the settings that the kubelet may not set.
func (s *Server) markNode(ctx context.Context) error {
	marks := nodeobject.Marks{
		Labels: map[string]string{},
		Annotations: map[string]string{
			nodeobject.AnnotationHostname: s.settings.NodeName,
			nodeobject.AnnotationInternal: strings.Join(texts(s.settings.NodeIP), ","),
		},
	}
	s.markRoles(&marks)
	mirror.Mark(&marks, s.settings.EmbeddedRegistry)
	if external := texts(s.settings.NodeExternalIP); len(external) > 0 {
		marks.Annotations[nodeobject.AnnotationExternal] = strings.Join(external, ",")
	}
	s.mu.Lock()
	if s.firstUsed != "" {
		marks.Annotations[nodeobject.AnnotationFirstUse] = s.firstUsed
	}
	s.mu.Unlock()
	maps.Copy(marks.Labels, s.others)
	return s.persist(ctx, func(ctx context.Context) error {
		if err := nodeobject.Ensure(ctx, s.client, s.settings.NodeName, marks); err != nil || !s.settings.DisableEtcd {
			return err
		}
		return nodeobject.DropCondition(ctx, s.client, s.settings.NodeName, member.ConditionVoter)
	})
}

func (s *Server) awaitNode(ctx context.Context) error {
	if err := nodeobject.WaitReady(ctx, s.client, s.settings.NodeName); err != nil {
		return err
	}
	s.milestone("node Ready")
	return nil
}

func (s *Server) awaitSystemPods(ctx context.Context) error {
	wanted, disabled := []string{"etcd-", "kube-apiserver-"}, s.manifestParams().Disabled()
	for name, absent := range map[string]bool{
		"kube-controller-manager-":  s.settings.DisableControllerManager,
		"kube-scheduler-":           s.settings.DisableScheduler,
		"kube-proxy-":               s.settings.DisableKubeProxy,
		"cloud-controller-manager-": s.settings.DisableCloudController,
		"kube-flannel-ds-":          !s.hasFlannel(),
		"coredns-":                  slices.Contains(disabled, "rke2-coredns"),
		"metrics-server-":           slices.Contains(disabled, "rke2-metrics-server"),
		"local-path-":               slices.Contains(disabled, "rke2-local-path"),
	} {
		if !absent {
			wanted = append(wanted, name)
		}
	}
	if err := systempods.WaitReady(ctx, s.client, wanted); err != nil {
		return err
	}
	s.milestone("system pods Ready")
	return nil
}

// watchEndpoints knows from now on where the cluster's kube-apiservers are, and has etcd tell the servers that run none.
func (s *Server) watchEndpoints(context.Context) error {
	latest := make(chan []string)
	s.background("endpoints", func(ctx context.Context) error {
		return endpoints.Watch(ctx, s.client, func(all []string) {
			s.mu.Lock()
			s.apis = all
			s.mu.Unlock()
			select {
			case latest <- all:
			case <-ctx.Done():
			}
		})
	})
	s.background("published endpoints", func(ctx context.Context) error {
		return member.Publish(ctx, s.etcd, latest, s.log)
	})
	return nil
}

// apiServers lists where kube-apiservers are reached. Before the cluster has said so, this server knows its own.
func (s *Server) apiServers(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.apis) > 0 || s.settings.DisableAPIServer {
		return s.apis, nil
	}
	if !s.isReady() {
		return nil, errors.New("kube-apiserver does not serve yet")
	}
	return []string{net.JoinHostPort(s.settings.AdvertiseAddress.String(), apiPort)}, nil
}

func (s *Server) isReady() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// leastRenewal is the least time between two looks at the certificates.
const leastRenewal = time.Minute

// startRenewal re-issues certificates when the first of them becomes due.
func (s *Server) startRenewal(context.Context) error {
	s.background("renewal", func(ctx context.Context) error {
		for {
			due := s.renewSurely(ctx)
			// An authority in its last half hour makes certificates that are due at once.
			timer := time.NewTimer(max(time.Until(due), leastRenewal))
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case <-timer.C:
			}
		}
	})
	return nil
}
