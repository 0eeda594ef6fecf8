// Package record keeps an ETCDSnapshotFile object in the cluster for each snapshot: etcdsnapshot's Records (k3s
// pkg/etcd/snapshot.go, ReconcileSnapshotData). Objects in place of one ConfigMap, because that outgrew what an object
// may hold (rke2 issue 4495).
//
// Files and objects lead, records follow: it never removes a snapshot. A server touches the records of its own folder
// and of the object store's folder that it was told about, and those of nodes that are no etcd members any more.
package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"keelson/node/etcdsnapshot"
	"keelson/node/nodeobject"
)

const (
	// keepFailures is how long people can read why there is no snapshot.
	keepFailures = 24 * time.Hour
	// settle is how old a record without its object must be: object stores list with delay.
	settle = time.Minute

	annotationLocal = "etcd.rke2.cattle.io/local-snapshots-timestamp"
	annotationS3    = "etcd.rke2.cattle.io/s3-snapshots-timestamp"
)

// Resource is where the objects are.
func Resource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "k3s.cattle.io", Version: "v1", Resource: "etcdsnapshotfiles"}
}

func nodes() schema.GroupVersionResource {
	return schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
}

// Records is an etcdsnapshot.Records.
type Records struct {
	client dynamic.Interface
	now    func() time.Time
}

// New returns records that are kept through client.
func New(client dynamic.Interface) *Records { return &Records{client: client, now: time.Now} }

// Reconcile implements etcdsnapshot.Records. What can be done is done; all failures are told.
func (r *Records) Reconcile(ctx context.Context, node string, local []etcdsnapshot.File, remote *etcdsnapshot.Remotes) error {
	all, err := r.list(ctx)
	if apierrors.IsNotFound(err) { // the resource itself: a new cluster, or one of another's making
		if err = r.define(ctx); err == nil {
			all, err = r.list(ctx)
		}
	}
	if err != nil {
		return err
	}
	problems := []error{r.follow(ctx, local, all, func(o etcdsnapshot.Object) bool { return o.Labels[etcdsnapshot.LabelStorageNode] == node })}
	if remote != nil {
		problems = append(problems, r.follow(ctx, remote.Files, all, func(o etcdsnapshot.Object) bool {
			return o.Labels[etcdsnapshot.LabelStorageNode] == etcdsnapshot.StorageS3 && o.Spec.S3 != nil && sameFolder(*o.Spec.S3, remote.Target) &&
				r.now().Sub(o.CreationTimestamp.Time) > settle
		}))
	}
	problems = append(problems, r.forget(ctx, node, all), r.stamp(ctx, node, remote != nil))
	return errors.Join(problems...)
}

func sameFolder(a, b etcdsnapshot.S3Target) bool {
	return a.Endpoint == b.Endpoint && a.Bucket == b.Bucket && a.Prefix == b.Prefix
}

// list returns every record. One that cannot be read is somebody's experiment, and left alone.
func (r *Records) list(ctx context.Context) (map[string]etcdsnapshot.Object, error) {
	all := map[string]etcdsnapshot.Object{}
	next := ""
	for {
		page, err := r.client.Resource(Resource()).List(ctx, metav1.ListOptions{Limit: 500, Continue: next})
		if err != nil {
			return nil, fmt.Errorf("list snapshot records: %w", err)
		}
		for _, u := range page.Items {
			var o etcdsnapshot.Object
			if runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &o) == nil {
				all[o.Name] = o
			}
		}
		if next = page.GetContinue(); next == "" {
			return all, nil
		}
	}
}

// follow makes the records of files, and removes those of files that are gone where gone allows it.
func (r *Records) follow(ctx context.Context, files []etcdsnapshot.File, all map[string]etcdsnapshot.Object, gone func(etcdsnapshot.Object) bool) error {
	var problems []error
	wanted := map[string]bool{}
	for _, f := range files {
		want := etcdsnapshot.ObjectOf(f)
		wanted[want.Name] = true
		have, there := all[want.Name]
		if there && same(have, want) {
			continue
		}
		problems = append(problems, r.write(ctx, have, want, there))
	}
	for name, o := range all {
		if !wanted[name] && gone(o) && !r.recentFailure(o) {
			problems = append(problems, r.remove(ctx, name))
		}
	}
	return errors.Join(problems...)
}

func same(have, want etcdsnapshot.Object) bool {
	return equality.Semantic.DeepEqual(have.Spec, want.Spec) && equality.Semantic.DeepEqual(have.Status, want.Status) &&
		have.Labels[etcdsnapshot.LabelStorageNode] == want.Labels[etcdsnapshot.LabelStorageNode]
}

func (r *Records) recentFailure(o etcdsnapshot.Object) bool {
	e := o.Status.Error
	return e != nil && e.Time != nil && r.now().Sub(e.Time.Time) < keepFailures
}

func (r *Records) write(ctx context.Context, have, want etcdsnapshot.Object, there bool) error {
	if there {
		want.ResourceVersion = have.ResourceVersion
	}
	data, err := json.Marshal(want)
	if err != nil {
		return fmt.Errorf("write snapshot record: %w", err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(data); err != nil {
		return fmt.Errorf("write snapshot record: %w", err)
	}
	if there {
		_, err = r.client.Resource(Resource()).Update(ctx, u, metav1.UpdateOptions{})
	} else {
		_, err = r.client.Resource(Resource()).Create(ctx, u, metav1.CreateOptions{})
	}
	if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) { // another server was faster
		return fmt.Errorf("write snapshot record %s: %w", want.Name, err)
	}
	return nil
}

func (r *Records) remove(ctx context.Context, name string) error {
	err := r.client.Resource(Resource()).Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove snapshot record %s: %w", name, err)
	}
	return nil
}

// forget removes the records of local files of nodes that hold no etcd any more. While this node itself is not
// marked yet, the marks say nothing.
func (r *Records) forget(ctx context.Context, node string, all map[string]etcdsnapshot.Object) error {
	list, err := r.client.Resource(nodes()).List(ctx, metav1.ListOptions{LabelSelector: nodeobject.LabelEtcd + "=true"})
	if err != nil {
		return fmt.Errorf("list etcd nodes: %w", err)
	}
	var members []string
	for _, n := range list.Items {
		members = append(members, n.GetName())
	}
	if !slices.Contains(members, node) {
		return nil
	}
	var problems []error
	for name, o := range all {
		storage := o.Labels[etcdsnapshot.LabelStorageNode]
		if storage != "" && storage != etcdsnapshot.StorageS3 && !slices.Contains(members, storage) {
			problems = append(problems, r.remove(ctx, name))
		}
	}
	return errors.Join(problems...)
}

// stamp tells on the Node when its records were last compared.
func (r *Records) stamp(ctx context.Context, node string, remote bool) error {
	now := r.now().UTC().Format(time.RFC3339)
	annotations := map[string]string{annotationLocal: now}
	if remote {
		annotations[annotationS3] = now
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		return fmt.Errorf("stamp node: %w", err)
	}
	_, err = r.client.Resource(nodes()).Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("stamp node %s: %w", node, err)
	}
	return nil
}
