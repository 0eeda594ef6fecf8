package nodepassword

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// A Secret without a Node is an orphan once a machine that joins would long have registered.
const (
	orphanAge = 10 * time.Minute
	lookEvery = 5 * time.Minute
)

// Run removes the Secrets of nodes that are gone, until ctx ends: at once when a Node is deleted while it watches, so
// that a machine with an empty disk can take its name, and by looking where nobody watched. Every server runs it; to
// remove what another has removed is nothing.
func (c *Checker) Run(ctx context.Context) error {
	c.mu.Lock()
	client := c.client
	c.mu.Unlock()
	if client == nil {
		return fmt.Errorf("look after node passwords: %w", ErrNotReady)
	}
	nodes := client.CoreV1().Nodes()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return nodes.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return nodes.Watch(ctx, o)
		},
	}
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, client),
		ObjectType:    &corev1.Node{},
		Handler: cache.ResourceEventHandlerFuncs{DeleteFunc: func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if node, ok := o.(*corev1.Node); ok {
				c.remove(ctx, client, node.Name)
			}
		}},
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		informer.RunWithContext(ctx)
	}()
	defer func() { <-ended }()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	// Until the list of Nodes is whole, every Secret would look like an orphan.
	synced := cache.WaitForCacheSync(ctx.Done(), informer.HasSynced)
	for synced && ctx.Err() == nil {
		c.removeOrphans(ctx, client, store, time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}

func (c *Checker) remove(ctx context.Context, client kubernetes.Interface, node string) {
	c.forget(node)
	name := strings.ToLower(node) + suffix
	err := client.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		c.cfg.Log.Warn("node password of a node that is gone stays for now", "node", node, "error", err)
	}
}

// removeOrphans looks through all Secrets of the kind.
func (c *Checker) removeOrphans(ctx context.Context, client kubernetes.Interface, nodes cache.Store, now time.Time) {
	all, err := client.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(secretType)})
	if err != nil {
		if ctx.Err() == nil {
			c.cfg.Log.Warn("cannot look for node passwords of nodes that are gone", "error", err)
		}
		return
	}
	exists := map[string]bool{}
	for _, name := range nodes.ListKeys() {
		exists[strings.ToLower(name)] = true
	}
	for _, s := range all.Items {
		node, ours := strings.CutSuffix(s.Name, suffix)
		if !ours || s.Type != secretType || exists[node] || now.Sub(s.CreationTimestamp.Time) < orphanAge {
			continue
		}
		c.cfg.Log.Info("node password of a node that is gone is removed", "node", node)
		c.remove(ctx, client, node)
	}
}
