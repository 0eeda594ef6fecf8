// Package helmchart keeps Helm releases in line with HelmChart and HelmChartConfig objects (helm.cattle.io/v1): what RKE2 has
// k3s-io/helm-controller for, with a job, an image and a cluster-admin pod for each chart. Here it is a part of the server,
// on the one that has the turn for it (node/turn), and a release needs no pod to begin and no node that is Ready: that is all
// that spec.bootstrap asks for.
//
// It fetches charts by node/chartsource (whose comment says which places spec.chart may name), merges values in RKE2's order,
// and has node/release do the rest. What it does and what fails is told as events and conditions of the HelmChart. It never
// uninstalls what has worked, unless the HelmChart is deleted. Who may write a HelmChart is an administrator of the cluster.
package helmchart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	helmv1 "github.com/k3s-io/helm-controller/pkg/apis/helm.cattle.io/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/util/workqueue"

	"keelson/node/chartsource"
	"keelson/node/release"
)

// Marks on a HelmChart, which are RKE2's, so that its backups work (helm-controller pkg/controllers/chart, rancher/wrangler
// pkg/generated/controllers remove handlers).
const (
	finalizer           = "wrangler.cattle.io/on-helm-chart-remove"
	annotationManagedBy = "helmcharts.cattle.io/managed-by"
	annotationUnmanaged = "helmcharts.helm.cattle.io/unmanaged"
	managedBy           = "helm-controller"
)

const (
	// workers is how many releases are worked on at a time: most of what they do is to wait for the API server.
	workers = 4
	// A release that failed is tried again.
	firstRetry, lastRetry = 2 * time.Second, 5 * time.Minute
	// defaultBackOffLimit is how often; RKE2's.
	defaultBackOffLimit = 1000
)

func charts() schema.GroupVersionResource {
	return helmv1.SchemeGroupVersion.WithResource("helmcharts")
}
func configs() schema.GroupVersionResource {
	return helmv1.SchemeGroupVersion.WithResource("helmchartconfigs")
}

// Releases are the releases of one namespace: node/release's, but in tests.
type Releases interface {
	Ensure(context.Context, release.Wanted) (release.Done, error)
	Remove(ctx context.Context, name string, timeout time.Duration) error
}

// Charts gets charts: node/chartsource does.
type Charts interface {
	Identify(chartsource.Request) (string, error)
	Load(context.Context, chartsource.Request) ([]byte, error)
}

// Clients are the ways to a cluster. They are made for one Run.
type Clients struct {
	Dynamic  dynamic.Interface
	Metadata metadata.Interface
	Events   typedcorev1.EventsGetter // nil: nothing is told as events
	// Releases of a namespace, with their records in Secrets or ConfigMaps.
	Releases func(namespace string, driver helmv1.HelmDriver) (Releases, error)
}

// Config is what a Controller needs.
type Config struct {
	Connect func(ctx context.Context) (Clients, error) // Connect of this package; none of them works when ctx has ended
	Charts  Charts
	Node    string // that tells it
	Log     *slog.Logger
}

// Controller keeps the releases of a cluster.
type Controller struct {
	cfg   Config
	retry func() workqueue.TypedRateLimiter[types.NamespacedName]
}

// New checks the configuration.
func New(cfg Config) (*Controller, error) {
	if cfg.Connect == nil || cfg.Charts == nil || cfg.Node == "" || cfg.Log == nil {
		return nil, errors.New("charts: a way to the cluster, a source of charts, a node and a log are needed")
	}
	return &Controller{cfg: cfg, retry: func() workqueue.TypedRateLimiter[types.NamespacedName] {
		return workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](firstRetry, lastRetry)
	}}, nil
}

// Run keeps releases until ctx ends, and then does nothing more in the cluster: another server may be at it already. What is
// cut short by that, the next finds as a release that was left half way.
func (c *Controller) Run(ctx context.Context) error {
	clients, err := c.cfg.Connect(ctx)
	if err != nil {
		return err
	}
	r := newRun(c, clients)
	if clients.Events != nil {
		stop := r.startTelling(clients.Events, c.cfg.Node)
		defer stop()
	}
	defer r.references.end()
	var all sync.WaitGroup
	defer all.Wait()
	defer r.queue.ShutDown()
	if err := r.watch(ctx, &all); err != nil {
		return err
	}
	for range workers {
		all.Go(func() {
			for r.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	return nil
}

// run is one Run's state.
type run struct {
	Clients
	charts     Charts
	log        *slog.Logger
	queue      workqueue.TypedRateLimitingInterface[types.NamespacedName]
	references *references
	tell       func(*helmv1.HelmChart, note)
	busy       sync.Map // *sync.Mutex by release: two HelmCharts may name the same

	mu       sync.Mutex
	failures map[types.NamespacedName]failures
}

// failures counts the tries at one and the same thing.
type failures struct {
	hash  string
	count int
}

func newRun(c *Controller, clients Clients) *run {
	r := &run{
		Clients: clients, charts: c.cfg.Charts, log: c.cfg.Log, tell: func(*helmv1.HelmChart, note) {}, failures: map[types.NamespacedName]failures{},
		queue: workqueue.NewTypedRateLimitingQueue(c.retry()),
	}
	r.references = newReferences(clients.Metadata, r.queue.Add, c.cfg.Log)
	return r
}

// next works on one chart, and tells whether there may be another.
func (r *run) next(ctx context.Context) bool {
	key, end := r.queue.Get()
	if end || ctx.Err() != nil {
		return false
	}
	defer r.queue.Done(key)
	worked, err := r.reconcile(ctx, key)
	switch {
	case ctx.Err() != nil:
		return false
	case errors.Is(err, errLeftAlone):
		r.queue.Forget(key)
	case err != nil:
		r.log.Warn("chart", "chart", key.String(), "error", err)
		r.queue.AddRateLimited(key)
	default:
		r.queue.Forget(key)
	}
	if worked && r.queue.Len() == 0 {
		debug.FreeOSMemory() // a chart's rendering takes much more than what lasts of it
	}
	return true
}

// failed counts a try that failed, and tells whether there have been more than allowed.
func (r *run) failed(key types.NamespacedName, hash string, limit *int32) error {
	most := defaultBackOffLimit
	if limit != nil {
		most = int(*limit)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.failures[key]
	if f.hash != hash {
		f = failures{hash: hash}
	}
	f.count++
	r.failures[key] = f
	if f.count > most {
		return fmt.Errorf("%w: it has failed %d times, and spec.backOffLimit is %d: change the HelmChart to have it tried again", errLeftAlone, f.count, most)
	}
	return nil
}

func (r *run) succeeded(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.failures, key)
}
