package addons

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

// definition is the kind Addon: k3s's (github.com/k3s-io/api, k3s.cattle.io/v1).
//
//go:embed addon.yaml
var definition []byte

// annotationKinds lists the kinds that an add-on has objects of, as k3s's deploy controller writes and reads it
// (k3s pkg/deploy, GVKAnnotation): "apps/v1, Kind=Deployment", with semicolons between.
const annotationKinds = "addon.k3s.cattle.io/gvks"

// record is what the cluster remembers of an add-on: its Addon object. An RKE2 server that takes over, or whose backup is
// restored here, finds in it what it wrote itself.
type record struct {
	name     string
	uid      types.UID
	source   string // path of the file
	checksum string // hexadecimal SHA-256 of the content that was applied whole; empty: none yet
	kinds    []schema.GroupVersionKind
}

// errNotServed says that the API server knows no Addons yet.
var errNotServed = errors.New("the API server does not serve Addons yet")

// records are the Addon objects.
type records struct {
	client dynamic.Interface
}

func (r records) addons() dynamic.ResourceInterface {
	return r.client.Resource(schema.GroupVersionResource{Group: "k3s.cattle.io", Version: "v1", Resource: "addons"}).Namespace(metav1.NamespaceSystem)
}

// define makes the kind known. It is served a moment later.
func (r records) define(ctx context.Context) error {
	crd := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(definition, &crd.Object); err != nil {
		return fmt.Errorf("definition of Addons: %w", err)
	}
	kinds := r.client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	if _, err := kinds.Apply(ctx, crd.GetName(), crd, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
		return fmt.Errorf("define Addons: %w", err)
	}
	return nil
}

// load returns an add-on's record; one that there is none of has no uid.
func (r records) load(ctx context.Context, name string) (record, error) {
	object, err := r.addons().Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil:
		return recordOf(object), nil
	case !apierrors.IsNotFound(err):
		return record{}, fmt.Errorf("read Addon %s: %w", name, err)
	case apierrors.IsUnexpectedServerError(err): // its 404 speaks of no object: the path is not served
		return record{}, errNotServed
	}
	return record{name: name}, nil
}

func recordOf(object *unstructured.Unstructured) record {
	rec := record{name: object.GetName(), uid: object.GetUID()}
	rec.source, _, _ = unstructured.NestedString(object.Object, "spec", "source")
	rec.checksum, _, _ = unstructured.NestedString(object.Object, "spec", "checksum")
	for text := range strings.SplitSeq(object.GetAnnotations()[annotationKinds], ";") {
		if kind, ok := parseKind(text); ok {
			rec.kinds = append(rec.kinds, kind)
		}
	}
	return rec
}

// parseKind reads what schema.GroupVersionKind prints.
func parseKind(text string) (schema.GroupVersionKind, bool) {
	version, kind, ok := strings.Cut(strings.TrimSpace(text), ", Kind=")
	gv, err := schema.ParseGroupVersion(version)
	if !ok || err != nil || gv.Version == "" || kind == "" {
		return schema.GroupVersionKind{}, false
	}
	return gv.WithKind(kind), true
}

// save puts a record in force, and fills in its uid.
func (r records) save(ctx context.Context, rec *record) error {
	var kinds []string
	for _, kind := range rec.kinds {
		kinds = append(kinds, kind.String())
	}
	object := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"source": rec.source, "checksum": rec.checksum}}}
	object.SetAPIVersion("k3s.cattle.io/v1")
	object.SetKind("Addon")
	object.SetName(rec.name)
	object.SetNamespace(metav1.NamespaceSystem)
	object.SetAnnotations(map[string]string{annotationKinds: strings.Join(kinds, ";")})
	saved, err := r.addons().Apply(ctx, rec.name, object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if apierrors.IsUnexpectedServerError(err) && apierrors.IsNotFound(err) {
		return errNotServed
	}
	if err != nil {
		return fmt.Errorf("write Addon %s: %w", rec.name, err)
	}
	rec.uid = saved.GetUID()
	return nil
}

// drop removes an add-on's record.
func (r records) drop(ctx context.Context, rec record) error {
	if rec.uid == "" {
		return nil
	}
	if err := r.addons().Delete(ctx, rec.name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove Addon %s: %w", rec.name, err)
	}
	return nil
}

// with returns kinds and those of documents, in order, each once.
func with(kinds []schema.GroupVersionKind, documents []document) []schema.GroupVersionKind {
	var more []schema.GroupVersionKind
	for _, d := range documents {
		more = append(more, d.object.GroupVersionKind())
	}
	return merge(kinds, more)
}

func merge(a, b []schema.GroupVersionKind) []schema.GroupVersionKind {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(all)
}
