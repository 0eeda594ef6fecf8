package nodeobject

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// ListWatch lists and follows the Nodes. choose narrows them down, by a selector; nil: all.
func ListWatch(client kubernetes.Interface, choose func(*metav1.ListOptions)) cache.ListerWatcher {
	if choose == nil {
		choose = func(*metav1.ListOptions) {}
	}
	nodes := client.CoreV1().Nodes()
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			choose(&o)
			return nodes.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			choose(&o)
			return nodes.Watch(ctx, o)
		},
	}, client)
}
