package helmchart

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
)

// watch has every HelmChart looked at once, and then whenever it or its HelmChartConfig changes. Only metadata is kept of
// them: a chart may be in its object, base64 and all.
func (r *run) watch(ctx context.Context, all *sync.WaitGroup) error {
	for _, resource := range []schema.GroupVersionResource{charts(), configs()} {
		_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
			ListerWatcher: metadataOf(r.Metadata, r.Metadata.Resource(resource), ""),
			ObjectType:    &metav1.PartialObjectMetadata{},
			Transform:     slim,
			Handler: cache.ResourceEventHandlerFuncs{
				AddFunc: r.enqueue,
				UpdateFunc: func(old, now any) {
					if changed(old, now) {
						r.enqueue(now)
					}
				},
				DeleteFunc: r.enqueue,
			},
		})
		all.Go(func() { informer.RunWithContext(ctx) })
	}
	return nil
}

// enqueue has a chart looked at. A HelmChartConfig has its HelmChart's name.
func (r *run) enqueue(object any) {
	if key, err := cache.DeletionHandlingObjectToName(object); err == nil {
		r.queue.Add(types.NamespacedName(key))
	}
}

// changed tells whether an object says something else: its status does not count, which is written here.
func changed(old, now any) bool {
	a, okA := old.(metav1.Object)
	b, okB := now.(metav1.Object)
	return !okA || !okB || a.GetGeneration() != b.GetGeneration() || a.GetUID() != b.GetUID() ||
		!equality.Semantic.DeepEqual(a.GetDeletionTimestamp(), b.GetDeletionTimestamp()) || !maps.Equal(a.GetAnnotations(), b.GetAnnotations())
}

// slim drops what nothing here reads.
func slim(object any) (any, error) {
	if m, ok := object.(*metav1.PartialObjectMetadata); ok {
		m.ManagedFields, m.Labels, m.OwnerReferences = nil, nil, nil
		annotations := map[string]string{}
		for _, name := range []string{annotationManagedBy, annotationUnmanaged} {
			if value, has := m.Annotations[name]; has {
				annotations[name] = value
			}
		}
		m.Annotations = annotations
	}
	return object, nil
}

// metadataOf lists and watches the metadata of objects: all of a kind, or one by its name.
func metadataOf(all metadata.Interface, client metadata.ResourceInterface, name string) cache.ListerWatcher {
	only := func(o *metav1.ListOptions) {
		if name != "" {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
		}
	}
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			only(&o)
			return client.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			only(&o)
			return client.Watch(ctx, o)
		},
	}, all)
}

// reference names a Secret or a ConfigMap that charts are made of.
type reference struct {
	resource        string // secrets or configmaps
	namespace, name string
}

// references follows what charts refer to, each by a watch of its own: the Secrets of a cluster are many, those that charts
// have values in are few.
type references struct {
	client metadata.Interface
	notify func(types.NamespacedName)
	log    *slog.Logger

	mu     sync.Mutex
	wanted map[reference]map[types.NamespacedName]bool // by whom
	cancel map[reference]context.CancelFunc
	all    sync.WaitGroup
	ended  bool
}

func newReferences(client metadata.Interface, notify func(types.NamespacedName), log *slog.Logger) *references {
	return &references{
		client: client, notify: notify, log: log,
		wanted: map[reference]map[types.NamespacedName]bool{}, cancel: map[reference]context.CancelFunc{},
	}
}

// set says what a chart refers to now.
func (f *references) set(ctx context.Context, chart types.NamespacedName, now map[reference]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ref, by := range f.wanted {
		if by[chart] && !now[ref] {
			delete(by, chart)
			if len(by) == 0 {
				f.cancel[ref]()
				delete(f.cancel, ref)
				delete(f.wanted, ref)
			}
		}
	}
	for ref := range now {
		if f.wanted[ref] == nil {
			if f.ended {
				return
			}
			f.wanted[ref] = map[types.NamespacedName]bool{}
			f.follow(ctx, ref)
		}
		f.wanted[ref][chart] = true
	}
}

// follow begins to watch. What is seen first counts as a change: it may be newer than what the chart was made of.
func (f *references) follow(ctx context.Context, ref reference) {
	ctx, f.cancel[ref] = context.WithCancel(ctx)
	client := f.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: ref.resource}).Namespace(ref.namespace)
	changed := func(any) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for chart := range f.wanted[ref] {
			f.notify(chart)
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: metadataOf(f.client, client, ref.name),
		ObjectType:    &metav1.PartialObjectMetadata{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: changed, DeleteFunc: changed,
			UpdateFunc: func(old, now any) {
				a, b := old.(*metav1.PartialObjectMetadata), now.(*metav1.PartialObjectMetadata)
				if a.ResourceVersion != b.ResourceVersion {
					changed(now)
				}
			},
		},
	})
	f.all.Go(func() { informer.RunWithContext(ctx) })
}

// end stops all watches.
func (f *references) end() {
	f.mu.Lock()
	f.ended = true
	for _, cancel := range f.cancel {
		cancel()
	}
	f.mu.Unlock()
	f.all.Wait()
}

// get reads an object into a typed one, and tells whether it is there.
func (r *run) get(ctx context.Context, resource schema.GroupVersionResource, namespace, name string, into any) (bool, error) {
	object, err := r.Dynamic.Resource(resource).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s %s/%s: %w", resource.Resource, namespace, name, err)
	}
	return true, convert(object, into)
}

func convert(object *unstructured.Unstructured, into any) error {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, into); err != nil {
		return fmt.Errorf("%s %s/%s: %w", object.GetKind(), object.GetNamespace(), object.GetName(), err)
	}
	return nil
}
