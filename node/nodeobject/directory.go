package nodeobject

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Directory knows which Node a name or an address belongs to, as the cluster says at the moment.
type Directory struct {
	client kubernetes.Interface

	mu    sync.RWMutex // guards what follows
	nodes map[string]string
	hosts map[string][]string // by node, what of nodes is its own
}

// NewDirectory makes one that knows nothing before Run.
func NewDirectory(client kubernetes.Interface) *Directory {
	return &Directory{client: client, nodes: map[string]string{}, hosts: map[string][]string{}}
}

// Run follows the Nodes until ctx ends.
func (d *Directory) Run(ctx context.Context) error {
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: ListWatch(d.client, nil),
		ObjectType:    &corev1.Node{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { d.put(o) },
			UpdateFunc: func(_, o any) { d.put(o) },
			DeleteFunc: func(o any) {
				if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
					o = gone.Obj
				}
				if node, ok := o.(*corev1.Node); ok {
					d.replace(node.Name, nil)
				}
			},
		},
	})
	informer.RunWithContext(ctx)
	return nil
}

func (d *Directory) put(o any) {
	node, ok := o.(*corev1.Node)
	if !ok {
		return
	}
	hosts := []string{node.Name}
	for _, a := range node.Status.Addresses {
		hosts = append(hosts, a.Address)
	}
	d.replace(node.Name, hosts)
}

// replace gives a node its hosts. A host that two nodes claim is the one's that claimed it last, and of nobody when that
// one gives it up: guessing would lead to the wrong machine.
func (d *Directory) replace(node string, hosts []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, host := range d.hosts[node] {
		if d.nodes[host] == node {
			delete(d.nodes, host)
		}
	}
	delete(d.hosts, node)
	if len(hosts) == 0 {
		return
	}
	d.hosts[node] = hosts
	for _, host := range hosts {
		d.nodes[host] = node
	}
}

// NodeOf gives the Node of a name or an address.
func (d *Directory) NodeOf(host string) (node string, ok bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	node, ok = d.nodes[host]
	return node, ok
}
