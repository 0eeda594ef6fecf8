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
	store  Store
}

// apply makes the cluster hold an add-on's documents and nothing else of it. Every document is tried. Objects that
// left the file are only removed once all others are there.
func (a applier) apply(ctx context.Context, addon string, documents []document) error {
	old, err := a.store.Load(addon)
	if err != nil {
		return err
	}
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
	// Saved before anything is removed: what is in the cluster is in the store, whenever the power goes.
	all := slices.Clone(refs)
	for _, ref := range old {
		if !slices.Contains(all, ref) {
			all = append(all, ref)
		}
	}
	if !slices.Equal(all, old) {
		if err := a.store.Save(addon, all); err != nil {
			return errors.Join(append(problems, err)...)
		}
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	for _, ref := range all[len(refs):] {
		if err := a.remove(ctx, addon, ref); err != nil {
			problems = append(problems, err)
		}
	}
	if len(problems) == 0 && len(all) != len(refs) {
		return a.store.Save(addon, refs)
	}
	return errors.Join(problems...)
}

// applyOnly applies what could be read of a broken file and prunes nothing.
func (a applier) applyOnly(ctx context.Context, addon string, documents []document) error {
	refs, err := a.store.Load(addon)
	if err != nil {
		return err
	}
	known := len(refs)
	var problems []error
	for _, d := range documents {
		ref, err := a.applyOne(ctx, addon, d)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", d, err))
			continue
		}
		if !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	if len(refs) != known {
		problems = append(problems, a.store.Save(addon, refs))
	}
	return errors.Join(problems...)
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

// remove deletes an object if it still is this add-on's.
func (a applier) remove(ctx context.Context, addon string, ref Ref) error {
	fail := func(err error) error {
		return fmt.Errorf("remove %s %s/%s: %w", ref.Kind, ref.Namespace, ref.Name, err)
	}
	mapping, err := a.mapping(schema.GroupVersionKind{Group: ref.Group, Version: ref.Version, Kind: ref.Kind})
	if meta.IsNoMatchError(err) {
		return nil // its kind is gone, and it with it
	}
	if err != nil {
		return fail(err)
	}
	client := a.client.Resource(mapping.Resource).Namespace(ref.Namespace)
	object, err := client.Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fail(err)
	}
	if object.GetLabels()[labelHash] != ownerHash(addon) {
		return nil
	}
	uid := object.GetUID()
	background := metav1.DeletePropagationBackground
	err = client.Delete(ctx, ref.Name, metav1.DeleteOptions{
		PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &uid},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fail(err)
	}
	return nil
}

// removeAll deletes everything of an add-on: what the store knows, and what its file still names.
func (a applier) removeAll(ctx context.Context, addon string, documents []document) error {
	refs, err := a.store.Load(addon)
	if err != nil {
		return err
	}
	for _, d := range documents {
		gvk := d.object.GroupVersionKind()
		namespace := d.object.GetNamespace()
		if mapping, err := a.mapping(gvk); err == nil && mapping.Scope.Name() == meta.RESTScopeNameNamespace && namespace == "" {
			namespace = metav1.NamespaceDefault
		}
		if ref := (Ref{gvk.Group, gvk.Version, gvk.Kind, namespace, d.object.GetName()}); !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	var problems []error
	for _, ref := range slices.Backward(refs) {
		if err := a.remove(ctx, addon, ref); err != nil {
			problems = append(problems, err)
		}
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	return a.store.Save(addon, nil)
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
