package kube

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// listWatch is the source of a wait: all objects of a kind, or one by name.
func listWatch[L runtime.Object](
	c *Client,
	list func(context.Context, metav1.ListOptions) (L, error),
	follow func(context.Context, metav1.ListOptions) (watch.Interface, error),
	name string,
) cache.ListerWatcher {
	choose := func(o *metav1.ListOptions) {
		if name != "" {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
		}
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			choose(&o)
			return list(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			choose(&o)
			return follow(ctx, o)
		},
	}
	return cache.ToListWatcherWithWatchListSemantics(lw, c.Interface) // a fake has only list and watch
}

// until runs an informer on lw and returns when done says so of the objects
// that are there. Unlike a bare watch it goes on after the server was away.
// What done says of its last look ends up in the error of a wait in vain.
func until[T runtime.Object](ctx context.Context, c *Client, lw cache.ListerWatcher, kind T, done func(all []T) (ok bool, last string)) error {
	ctx, cancel := context.WithCancel(ctx)
	changes, failures := make(chan struct{}, 1), make(chan error, 1)
	poke := func() {
		select {
		case changes <- struct{}{}:
		default: // a look is due already
		}
	}
	informer := cache.NewSharedIndexInformer(lw, kind, 0, cache.Indexers{})
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { poke() }, UpdateFunc: func(any, any) { poke() }, DeleteFunc: func(any) { poke() },
	})
	if err != nil {
		cancel()
		return fmt.Errorf("watch: %w", err)
	}
	if err := informer.SetWatchErrorHandler(func(_ *cache.Reflector, err error) {
		select {
		case failures <- err:
		default:
		}
	}); err != nil {
		cancel()
		return fmt.Errorf("watch: %w", err)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		informer.RunWithContext(ctx)
	}()
	defer func() { cancel(); <-stopped }()
	go func() { // of an empty list no handler hears
		if cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			poke()
		}
	}()

	last, lastError := "nothing was seen", error(nil)
	for {
		select {
		case <-changes:
			if !registration.HasSynced() {
				continue // the poke of the sync is still to come
			}
			var all []T
			for _, o := range informer.GetStore().List() {
				all = append(all, o.(T))
			}
			var ok bool
			if ok, last = done(all); ok {
				return nil
			}
			if c.looked != nil {
				c.looked()
			}
		case lastError = <-failures:
		case <-ctx.Done():
			if lastError != nil {
				last += fmt.Sprintf(" (the last error of the watch: %v)", lastError)
			}
			return fmt.Errorf("%w: %s", ctx.Err(), last)
		}
	}
}
