// Package endpoints watches where the cluster's kube-apiservers are: the EndpointSlice of the kubernetes Service, which
// each of them keeps its own address in.
//
// It only reads. node/server answers /v1-rke2/apiservers from it and keeps etcd's `rke2/apiaddresses`; node/agent gives
// the list to its load balancers and tunnels.
package endpoints

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// selector picks the slices of Service default/kubernetes (k8s.io/kubernetes pkg/controlplane/reconcilers).
const selector = discoveryv1.LabelServiceName + "=kubernetes"

// defaultPort serves a slice that names no port.
const defaultPort = 6443

// Watch tells changed the sorted list of host:port, now and whenever it differs from the one told before, until ctx is
// done. An empty list is never told: the API that would say so is served by somebody. Calls do not overlap.
func Watch(ctx context.Context, client kubernetes.Interface, changed func([]string)) error {
	slicesOf := client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = selector
			return slicesOf.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector = selector
			return slicesOf.Watch(ctx, o)
		},
	}
	dirty := make(chan struct{}, 1)
	mark := func() {
		select {
		case dirty <- struct{}{}:
		default: // one look is as good as two
		}
	}
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, client),
		ObjectType:    &discoveryv1.EndpointSlice{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { mark() }, UpdateFunc: func(any, any) { mark() }, DeleteFunc: func(any) { mark() },
		},
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		informer.RunWithContext(ctx)
	}()
	defer func() { <-ended }()
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return fmt.Errorf("watch endpoints of kube-apiserver: %w", ctx.Err())
	}
	var told []string
	for {
		if now := addresses(store.List()); len(now) > 0 && !slices.Equal(now, told) {
			told = now
			changed(slices.Clone(now))
		}
		select {
		case <-dirty:
		case <-ctx.Done():
			return nil
		}
	}
}

// addresses lists what the slices hold, each once, sorted.
func addresses(all []any) []string {
	var out []string
	for _, one := range all {
		slice, ok := one.(*discoveryv1.EndpointSlice)
		if !ok {
			continue
		}
		port := defaultPort
		for _, p := range slice.Ports {
			if p.Port != nil && (p.Name == nil || *p.Name == "https" || *p.Name == "") {
				port = int(*p.Port)
			}
		}
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			for _, a := range e.Addresses {
				out = append(out, net.JoinHostPort(a, strconv.Itoa(port)))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
