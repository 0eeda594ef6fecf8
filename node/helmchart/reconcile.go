package helmchart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	helmv1 "github.com/k3s-io/helm-controller/pkg/apis/helm.cattle.io/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson/node/release"
)

// errLeftAlone is a chart that is not tried again before something about it changes.
var errLeftAlone = errors.New("the chart is left alone")

// reconcile brings one release in line with its objects, and tells whether there was something to do.
func (r *run) reconcile(ctx context.Context, key types.NamespacedName) (worked bool, err error) {
	chart := &helmv1.HelmChart{}
	found, err := r.get(ctx, charts(), key.Namespace, key.Name, chart)
	if err != nil {
		return false, err
	}
	if !found {
		r.references.set(ctx, key, nil)
		r.succeeded(key)
		return false, nil
	}
	unlock := r.lock(targetOf(chart), chart.Name)
	defer unlock()
	switch {
	case !managed(chart):
		r.references.set(ctx, key, nil)
		if _, told := chart.Annotations[annotationUnmanaged]; told && chart.DeletionTimestamp != nil {
			return false, r.release(ctx, chart) // which nobody else would
		}
		return false, nil
	case chart.DeletionTimestamp != nil:
		return true, r.remove(ctx, chart)
	}
	if err := r.claim(ctx, chart); err != nil {
		return false, err
	}
	config := &helmv1.HelmChartConfig{}
	if found, err := r.get(ctx, configs(), key.Namespace, key.Name, config); err != nil {
		return false, err
	} else if !found {
		config = nil
	}
	r.references.set(ctx, key, referencesOf(chart, config))
	return r.apply(ctx, key, chart, config)
}

// lock keeps two workers off one release.
func (r *run) lock(namespace, name string) (unlock func()) {
	one, _ := r.busy.LoadOrStore(namespace+"/"+name, &sync.Mutex{})
	one.(*sync.Mutex).Lock()
	return one.(*sync.Mutex).Unlock
}

// managed tells whether a chart is this controller's.
func managed(chart *helmv1.HelmChart) bool {
	if _, told := chart.Annotations[annotationUnmanaged]; told {
		return false
	}
	by, told := chart.Annotations[annotationManagedBy]
	return !told || by == managedBy
}

// targetOf is the namespace of a chart's release.
func targetOf(chart *helmv1.HelmChart) string {
	if chart.Spec.TargetNamespace != "" {
		return chart.Spec.TargetNamespace
	}
	return chart.Namespace
}

// claim marks a chart as this controller's, and keeps it from going before its release has gone.
func (r *run) claim(ctx context.Context, chart *helmv1.HelmChart) error {
	if chart.Annotations[annotationManagedBy] == managedBy && slices.Contains(chart.Finalizers, finalizer) {
		return nil
	}
	finalizers := chart.Finalizers
	if !slices.Contains(finalizers, finalizer) {
		finalizers = append(slices.Clone(finalizers), finalizer)
	}
	return r.mark(ctx, chart, map[string]any{"finalizers": finalizers, "annotations": map[string]any{annotationManagedBy: managedBy}})
}

// release lets a chart go.
func (r *run) release(ctx context.Context, chart *helmv1.HelmChart) error {
	if !slices.Contains(chart.Finalizers, finalizer) {
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(chart.Finalizers), func(f string) bool { return f == finalizer })
	return r.mark(ctx, chart, map[string]any{"finalizers": left})
}

// mark changes a chart's metadata, if nobody else has changed the chart meanwhile.
func (r *run) mark(ctx context.Context, chart *helmv1.HelmChart, metadata map[string]any) error {
	metadata["resourceVersion"], metadata["uid"] = chart.ResourceVersion, chart.UID
	patch, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return fmt.Errorf("mark HelmChart %s/%s: %w", chart.Namespace, chart.Name, err)
	}
	_, err = r.Dynamic.Resource(charts()).Namespace(chart.Namespace).Patch(ctx, chart.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: managedBy})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("mark HelmChart %s/%s: %w", chart.Namespace, chart.Name, err)
	}
	return nil
}

// remove uninstalls the release of a chart that is deleted.
func (r *run) remove(ctx context.Context, chart *helmv1.HelmChart) error {
	if !slices.Contains(chart.Finalizers, finalizer) {
		return nil
	}
	if err := r.retire(ctx, chart); err != nil {
		return err
	}
	releases, err := r.Releases(targetOf(chart), chart.Spec.Driver)
	if err == nil {
		err = releases.Remove(ctx, chart.Name, timeoutOf(chart))
	}
	if err != nil {
		r.note(ctx, chart, reasonRemove, err)
		return err
	}
	r.tell(chart, note{corev1.EventTypeNormal, reasonRemoved, "Uninstalled release " + targetOf(chart) + "/" + chart.Name})
	key := types.NamespacedName{Namespace: chart.Namespace, Name: chart.Name}
	r.references.set(ctx, key, nil)
	r.succeeded(key)
	return r.release(ctx, chart)
}

func timeoutOf(chart *helmv1.HelmChart) time.Duration {
	if chart.Spec.Timeout == nil {
		return 0
	}
	return chart.Spec.Timeout.Duration
}

// apply installs or upgrades a chart's release, unless it is deployed as it should be.
func (r *run) apply(ctx context.Context, key types.NamespacedName, chart *helmv1.HelmChart, config *helmv1.HelmChartConfig) (worked bool, err error) {
	// What is wrong is told with its reason; a chart that failed too often is left alone.
	fail := func(reason, hash string, err error) (bool, error) {
		if ctx.Err() != nil {
			return true, err // cut short: it says nothing about the chart
		}
		if !errors.Is(err, errLeftAlone) {
			if over := r.failed(key, hash, chart.Spec.BackOffLimit); over != nil {
				err = fmt.Errorf("%w; %w", err, over)
			}
		}
		r.note(ctx, chart, reason, err)
		return true, err
	}
	request, err := r.request(ctx, chart)
	if err != nil {
		return fail(reasonChart, "", err)
	}
	merged, err := r.values(ctx, chart, config)
	if err != nil {
		return fail(reasonValues, "", err)
	}
	identity, err := r.charts.Identify(request)
	if err != nil {
		return fail(reasonChart, "", err)
	}
	wanted := wantedOf(chart, config)
	if wanted.Hash, err = hash(identity, merged.watched, wanted); err != nil {
		return fail(reasonValues, "", err)
	}
	deployed, err := r.deployed(ctx, chart, wanted)
	if err != nil {
		return false, err
	}
	if deployed {
		r.succeeded(key)
		return false, r.report(ctx, chart, statusOf(wanted))
	}
	if err := r.retire(ctx, chart); err != nil {
		return false, err
	}
	r.tell(chart, note{corev1.EventTypeNormal, reasonApplying, fmt.Sprintf("Applying release %s/%s from %s", wanted.Namespace, wanted.Name, request)})
	r.tellIgnored(chart)
	if wanted.Archive, err = r.charts.Load(ctx, request); err != nil {
		return fail(reasonChart, wanted.Hash, err)
	}
	wanted.Values = merged.all
	releases, err := r.Releases(wanted.Namespace, chart.Spec.Driver)
	if err != nil {
		return fail(reasonRelease, wanted.Hash, err)
	}
	done, err := releases.Ensure(ctx, wanted)
	if errors.Is(err, release.ErrAborted) {
		err = fmt.Errorf("%w: %w", errLeftAlone, err)
	}
	if err != nil {
		return fail(reasonRelease, wanted.Hash, err)
	}
	r.succeeded(key)
	if done != release.Nothing {
		r.log.Info("chart", "chart", key.String(), "release", wanted.Namespace+"/"+wanted.Name, "done", string(done))
		r.tell(chart, note{corev1.EventTypeNormal, doneReason(done), fmt.Sprintf("%s release %s/%s from %s", doneReason(done), wanted.Namespace, wanted.Name, request)})
	}
	return true, r.report(ctx, chart, statusOf(wanted))
}

// wantedOf is what a chart and its configuration say of a release, but for chart and values.
func wantedOf(chart *helmv1.HelmChart, config *helmv1.HelmChartConfig) release.Wanted {
	s := chart.Spec
	w := release.Wanted{
		Name: chart.Name, Namespace: targetOf(chart), CreateNamespace: s.CreateNamespace, TakeOwnership: s.TakeOwnership,
		ForceConflicts: s.ForceConflicts, ServerSide: string(s.ServerSide), Timeout: timeoutOf(chart), Policy: release.Policy(s.FailurePolicy),
	}
	if config == nil {
		return w
	}
	if config.Spec.FailurePolicy != "" {
		w.Policy = release.Policy(config.Spec.FailurePolicy)
	}
	if config.Spec.ServerSide != "" {
		w.ServerSide = string(config.Spec.ServerSide)
	}
	if config.Spec.ForceConflicts != nil {
		w.ForceConflicts = *config.Spec.ForceConflicts
	}
	return w
}
