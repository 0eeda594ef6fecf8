package addons

import (
	"context"
	"crypto/sha1" // the label's form is wrangler's; nothing is protected by it
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// fieldManager owns the fields that manifests set.
const fieldManager = "rke2-deploy"

// Marks of an object's owner, as k3s's deploy controller sets them (rancher/wrangler pkg/apply).
const (
	labelHash       = "objectset.rio.cattle.io/hash"
	annotationID    = "objectset.rio.cattle.io/id"
	annotationGVK   = "objectset.rio.cattle.io/owner-gvk"
	annotationName  = "objectset.rio.cattle.io/owner-name"
	annotationSpace = "objectset.rio.cattle.io/owner-namespace"
	ownerGVK        = "k3s.cattle.io/v1, Kind=Addon"
)

// Mapper finds the resource of a kind. Reset forgets what it knew.
type Mapper interface {
	meta.RESTMapper
	Reset()
}

type applier struct {
	client dynamic.Interface
	mapper Mapper
}

// Ref names an object in the cluster.
type Ref struct {
	Group, Version, Kind, Namespace, Name string
}

// apply makes the cluster hold an add-on's documents, and returns what they are there. Every document is tried.
func (a applier) apply(ctx context.Context, addon string, documents []document) ([]Ref, error) {
	var refs []Ref
	var problems []error
	for _, d := range documents {
		ref, err := a.applyOne(ctx, addon, d)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", d, err))
			continue
		}
		refs = append(refs, ref)
	}
	return refs, errors.Join(problems...)
}

func (a applier) applyOne(ctx context.Context, addon string, d document) (Ref, error) {
	gvk := d.object.GroupVersionKind()
	mapping, err := a.mapping(gvk)
	if err != nil {
		return Ref{}, err
	}
	object := d.object.DeepCopy()
	var client dynamic.ResourceInterface = a.client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		if object.GetNamespace() == "" {
			object.SetNamespace(metav1.NamespaceDefault)
		}
		client = a.client.Resource(mapping.Resource).Namespace(object.GetNamespace())
	} else {
		object.SetNamespace("")
	}
	mark(object, addon)
	if _, err := client.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
		return Ref{}, err
	}
	if gvk.Kind == "CustomResourceDefinition" {
		a.mapper.Reset()
	}
	return Ref{gvk.Group, gvk.Version, gvk.Kind, object.GetNamespace(), object.GetName()}, nil
}

// mapping asks anew, once, when a kind is not known: it may have come since.
func (a applier) mapping(gvk schema.GroupVersionKind) (*meta.RESTMapping, error) {
	mapping, err := a.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if meta.IsNoMatchError(err) {
		a.mapper.Reset()
		mapping, err = a.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	}
	return mapping, err
}

// prune deletes the objects of the given kinds that are marked as the add-on's, except those in keep.
func (a applier) prune(ctx context.Context, addon string, kinds []schema.GroupVersionKind, keep []Ref) error {
	var problems []error
	for _, kind := range kinds {
		if err := a.pruneKind(ctx, addon, kind, keep); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

func (a applier) pruneKind(ctx context.Context, addon string, kind schema.GroupVersionKind, keep []Ref) error {
	mapping, err := a.mapping(kind)
	if meta.IsNoMatchError(err) {
		return nil // the kind is gone, and its objects with it
	}
	if err != nil {
		return fmt.Errorf("look for what is left of kind %s: %w", kind.Kind, err)
	}
	all, err := a.client.Resource(mapping.Resource).List(ctx, metav1.ListOptions{LabelSelector: labelHash + "=" + ownerHash(addon)})
	if err != nil {
		return fmt.Errorf("look for what is left of kind %s: %w", kind.Kind, err)
	}
	var problems []error
	for _, object := range all.Items {
		// The kind may have moved to another version since: a name in a group is one object.
		kept := slices.ContainsFunc(keep, func(r Ref) bool {
			return r.Group == kind.Group && r.Kind == kind.Kind && r.Namespace == object.GetNamespace() && r.Name == object.GetName()
		})
		if kept || object.GetAnnotations()[annotationName] != addon {
			continue // a hash is short enough to be somebody's idea; the name must be right as well
		}
		if err := a.remove(ctx, mapping, &object); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

func (a applier) remove(ctx context.Context, mapping *meta.RESTMapping, object *unstructured.Unstructured) error {
	uid := object.GetUID()
	background := metav1.DeletePropagationBackground
	err := a.client.Resource(mapping.Resource).Namespace(object.GetNamespace()).Delete(ctx, object.GetName(), metav1.DeleteOptions{
		PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &uid},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove %s %s/%s: %w", mapping.GroupVersionKind.Kind, object.GetNamespace(), object.GetName(), err)
	}
	return nil
}

// removeAll deletes everything of an add-on: first what its file names, from its end, so that a namespace goes after what
// is in it, then what else is marked as its own.
func (a applier) removeAll(ctx context.Context, addon string, kinds []schema.GroupVersionKind, documents []document) error {
	var problems []error
	for _, d := range slices.Backward(documents) {
		if err := a.removeOne(ctx, addon, d); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", d, err))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	return a.prune(ctx, addon, with(kinds, documents), nil)
}

// removeOne deletes an object if it still is this add-on's.
func (a applier) removeOne(ctx context.Context, addon string, d document) error {
	mapping, err := a.mapping(d.object.GroupVersionKind())
	if meta.IsNoMatchError(err) {
		return nil
	}
	if err != nil {
		return err
	}
	namespace := ""
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		if namespace = d.object.GetNamespace(); namespace == "" {
			namespace = metav1.NamespaceDefault
		}
	}
	object, err := a.client.Resource(mapping.Resource).Namespace(namespace).Get(ctx, d.object.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if object.GetLabels()[labelHash] != ownerHash(addon) {
		return nil
	}
	return a.remove(ctx, mapping, object)
}

func mark(object metav1.Object, addon string) {
	labels, annotations := object.GetLabels(), object.GetAnnotations()
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	labels[labelHash] = ownerHash(addon)
	annotations[annotationID] = ""
	annotations[annotationGVK] = ownerGVK
	annotations[annotationName] = addon
	annotations[annotationSpace] = metav1.NamespaceSystem
	object.SetLabels(labels)
	object.SetAnnotations(annotations)
}

// ownerHash is wrangler's objectSetHash: SHA-1 over the owner's set ID (k3s has none), kind, name and namespace.
func ownerHash(addon string) string {
	sum := sha1.Sum([]byte(ownerGVK + addon + metav1.NamespaceSystem))
	return hex.EncodeToString(sum[:])
}
