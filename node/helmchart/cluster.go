package helmchart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	helmv1 "github.com/k3s-io/helm-controller/pkg/apis/helm.cattle.io/v1"
	"helm.sh/helm/v4/pkg/kube"
	"helm.sh/helm/v4/pkg/storage/driver"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"keelson/node/release"
)

// errEnded is why nothing more is asked of a cluster.
var errEnded = errors.New("this server has the turn for charts no more")

// Connect makes the ways to an API server. They are shut when ctx ends: Helm goes on with what it has begun whatever it is
// told, and two servers are not to work on one release.
func Connect(ctx context.Context, server *rest.Config, log *slog.Logger) (Clients, error) {
	server = rest.CopyConfig(server)
	server.QPS, server.Burst = 50, 300 // kubectl's, which has the same to do
	server.Wrap(func(next http.RoundTripper) http.RoundTripper { return fence{ctx, next} })
	fail := func(err error) (Clients, error) { return Clients{}, fmt.Errorf("make client for charts: %w", err) }
	c := Clients{}
	var err error
	if c.Dynamic, err = dynamic.NewForConfig(server); err != nil {
		return fail(err)
	}
	if c.Metadata, err = metadata.NewForConfig(server); err != nil {
		return fail(err)
	}
	typed, err := kubernetes.NewForConfig(server)
	if err != nil {
		return fail(err)
	}
	c.Events = typed.CoreV1()
	c.Releases = func(namespace string, kind helmv1.HelmDriver) (Releases, error) {
		access, err := newAccess(server, namespace)
		if err != nil {
			return nil, err
		}
		client := kube.New(access)
		client.Namespace = namespace
		client.SetLogger(log.Handler())
		var records driver.Driver
		switch kind {
		case helmv1.HelmDriverConfigMap:
			d := driver.NewConfigMaps(typed.CoreV1().ConfigMaps(namespace))
			d.SetLogger(log.Handler())
			records = d
		default:
			d := driver.NewSecrets(typed.CoreV1().Secrets(namespace))
			d.SetLogger(log.Handler())
			records = d
		}
		return release.New(release.Config{Records: records, Kube: client, Getter: access, Log: log})
	}
	return c, nil
}

// access is what Helm and the parts of kubectl in it ask for a cluster (k8s.io/cli-runtime genericclioptions). What it has
// found of the cluster's kinds lasts as long as the work on one release, and is forgotten with it.
type access struct {
	server    *rest.Config
	namespace string
	kinds     discovery.CachedDiscoveryInterface
	mapper    meta.ResettableRESTMapper
}

func newAccess(server *rest.Config, namespace string) (*access, error) {
	kinds, err := discovery.NewDiscoveryClientForConfig(server)
	if err != nil {
		return nil, fmt.Errorf("make discovery client for charts: %w", err)
	}
	cached := memory.NewMemCacheClient(kinds)
	return &access{server: server, namespace: namespace, kinds: cached, mapper: restmapper.NewDeferredDiscoveryRESTMapper(cached)}, nil
}

// ToRESTConfig implements genericclioptions.RESTClientGetter.
func (a *access) ToRESTConfig() (*rest.Config, error) { return rest.CopyConfig(a.server), nil }

// ToDiscoveryClient implements genericclioptions.RESTClientGetter.
func (a *access) ToDiscoveryClient() (discovery.CachedDiscoveryInterface, error) { return a.kinds, nil }

// ToRESTMapper implements genericclioptions.RESTClientGetter.
func (a *access) ToRESTMapper() (meta.RESTMapper, error) { return a.mapper, nil }

// ToRawKubeConfigLoader implements genericclioptions.RESTClientGetter. What asks for it wants the namespace alone.
func (a *access) ToRawKubeConfigLoader() clientcmd.ClientConfig {
	return clientcmd.NewDefaultClientConfig(*clientcmdapi.NewConfig(), &clientcmd.ConfigOverrides{
		ClusterInfo: clientcmdapi.Cluster{Server: a.server.Host}, Context: clientcmdapi.Context{Namespace: a.namespace},
	})
}

// fence lets requests through until ctx ends, and ends those that are on their way then.
type fence struct {
	ctx  context.Context
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (f fence) RoundTrip(req *http.Request) (*http.Response, error) {
	if f.ctx.Err() != nil {
		return nil, errEnded
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	stop := context.AfterFunc(f.ctx, func() { cancel(errEnded) })
	answer, err := f.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		stop()
		cancel(nil)
		return nil, err
	}
	answer.Body = fenced{answer.Body, func() { stop(); cancel(nil) }}
	return answer, nil
}

// WrappedRoundTripper implements net.RoundTripperWrapper.
func (f fence) WrappedRoundTripper() http.RoundTripper { return f.next }

// fenced is an answer's body that gives back what its request has taken.
type fenced struct {
	io.ReadCloser
	done func()
}

// Close implements io.Closer.
func (b fenced) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}
