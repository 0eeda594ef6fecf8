package mirror

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Label is on the Nodes that share images: RKE2's (k3s pkg/spegel, P2pEnabledLabel). RKE2 finds a libp2p address in an
// annotation beside it; here the Node's own address and the supervisor's port are enough.
const Label = "p2p.rke2.cattle.io/enabled"

// mostPeers is how many nodes are remembered. Search's time lets no more be asked.
const mostPeers = 512

// Peers are the other nodes that share images, as the cluster says at the moment.
type Peers struct {
	client    kubernetes.Interface
	own, port string
	changed   func() // the test's, at each change; or nil

	mu  sync.RWMutex      // guards what follows
	all map[string]string // by node, host:port
}

// NewPeers makes a list that is empty before Run. own is this machine's Node, which is left out.
func NewPeers(client kubernetes.Interface, own, port string) *Peers {
	return &Peers{client: client, own: own, port: port, all: map[string]string{}}
}

// List gives the peers' addresses.
func (p *Peers) List() []string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return slices.Collect(maps.Values(p.all))
}

// Run follows the Nodes until ctx ends.
func (p *Peers) Run(ctx context.Context) error {
	nodes := p.client.CoreV1().Nodes()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = Label + "=true"
			return nodes.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector = Label + "=true"
			return nodes.Watch(ctx, o)
		},
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, p.client),
		ObjectType:    &corev1.Node{},
		Transform:     slim,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    p.put,
			UpdateFunc: func(_, o any) { p.put(o) },
			DeleteFunc: p.drop,
		},
	})
	informer.RunWithContext(ctx)
	return nil
}

// slim keeps of a Node what is used here.
func slim(o any) (any, error) {
	node, ok := o.(*corev1.Node)
	if !ok {
		return o, nil
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion, Labels: map[string]string{Label: node.Labels[Label]}},
		Status:     corev1.NodeStatus{Addresses: node.Status.Addresses, Conditions: node.Status.Conditions},
	}, nil
}

// put takes a node over. One that is not Ready would cost each search its whole time.
func (p *Peers) put(o any) {
	node, ok := o.(*corev1.Node)
	if !ok || node.Name == p.own {
		return
	}
	address := ""
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP && net.ParseIP(a.Address) != nil && node.Labels[Label] == "true" {
			address = net.JoinHostPort(a.Address, p.port)
			break
		}
	}
	ready := slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	if !ready {
		address = ""
	}
	p.set(node.Name, address)
}

// drop forgets a node that is gone.
func (p *Peers) drop(o any) {
	if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	if node, ok := o.(*corev1.Node); ok {
		p.set(node.Name, "")
	}
}

func (p *Peers) set(node, address string) {
	if p.changed != nil {
		defer p.changed()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.all[node]
	switch {
	case address == "":
		delete(p.all, node)
	case known || len(p.all) < mostPeers:
		p.all[node] = address
	}
}
