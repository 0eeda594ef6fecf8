package helmchart

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	helmv1 "github.com/k3s-io/helm-controller/pkg/apis/helm.cattle.io/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	events "k8s.io/client-go/tools/record"

	"keelson/node/release"
)

// Reasons of events, and of the condition Failed.
const (
	reasonChart   = "ChartFailed"   // where the chart is, or what it is fetched with
	reasonValues  = "ValuesFailed"  // its values cannot be put together
	reasonRelease = "ReleaseFailed" // what Helm says
	reasonRemove  = "RemoveFailed"

	reasonApplying = "Applying" // by the server that the event comes from
	reasonRemoved  = "Removed"
	reasonIgnored  = "FieldIgnored"
)

// doneReason is the reason of an event about what was done.
func doneReason(d release.Done) string {
	switch d {
	case release.Installed:
		return "Installed"
	case release.Reinstalled:
		return "Reinstalled"
	}
	return "Upgraded"
}

// most is how long an event's message may be (k8s.io/kubernetes pkg/apis/core/validation/events.go).
const most = 1024

// note is an event of a chart.
type note struct{ severity, reason, text string }

// note tells what is wrong, as an event and in the status.
func (r *run) note(ctx context.Context, chart *helmv1.HelmChart, reason string, problem error) {
	r.tell(chart, note{corev1.EventTypeWarning, reason, problem.Error()})
	if err := r.report(ctx, chart, failedStatus(reason, problem)); err != nil {
		r.log.Warn("chart", "error", err)
	}
}

// tellIgnored tells of fields that are about RKE2's job, and have nothing to say without one.
func (r *run) tellIgnored(chart *helmv1.HelmChart) {
	s := chart.Spec
	for _, f := range []struct {
		field, why string
		set        bool
	}{
		{"helmVersion", "charts are applied by the Helm SDK of this system, which takes charts of Helm 2, 3 and 4", s.HelmVersion != "" && s.HelmVersion != "v3"},
		{"jobImage", "no job is made", s.JobImage != ""},
		{"podSecurityContext", "no pod is made", s.PodSecurityContext != nil},
		{"securityContext", "no pod is made", s.SecurityContext != nil},
	} {
		if f.set {
			r.tell(chart, note{corev1.EventTypeNormal, reasonIgnored, "spec." + f.field + " is ignored: " + f.why})
		}
	}
}

// statusOf is what a chart's status says of a release that is as it should be. JobCreated is true, though there is no job:
// what waits for it waits for the chart to be taken on.
func statusOf(w release.Wanted) []helmv1.HelmChartCondition {
	return []helmv1.HelmChartCondition{
		{Type: helmv1.HelmChartJobCreated, Status: corev1.ConditionTrue, Reason: "Applied", Message: fmt.Sprintf("Release %s/%s is applied, without a job", w.Namespace, w.Name)},
		{Type: helmv1.HelmChartFailed, Status: corev1.ConditionFalse},
	}
}

func failedStatus(reason string, problem error) []helmv1.HelmChartCondition {
	return []helmv1.HelmChartCondition{
		{Type: helmv1.HelmChartJobCreated, Status: corev1.ConditionFalse, Reason: reason},
		{Type: helmv1.HelmChartFailed, Status: corev1.ConditionTrue, Reason: reason, Message: problem.Error()},
	}
}

// report writes a chart's status, if it says something else. There is no job to be named.
func (r *run) report(ctx context.Context, chart *helmv1.HelmChart, conditions []helmv1.HelmChartCondition) error {
	if chart.Status.JobName == "" && slices.Equal(chart.Status.Conditions, conditions) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"jobName": nil, "conditions": conditions}})
	if err != nil {
		return fmt.Errorf("status of HelmChart %s/%s: %w", chart.Namespace, chart.Name, err)
	}
	_, err = r.Dynamic.Resource(charts()).Namespace(chart.Namespace).Patch(ctx, chart.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: managedBy}, "status")
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("status of HelmChart %s/%s: %w", chart.Namespace, chart.Name, err)
	}
	return nil
}

// startTelling has events written from now on, alike ones counted together.
func (r *run) startTelling(to typedcorev1.EventsGetter, node string) (stop func()) {
	broadcaster := events.NewBroadcaster()
	watch := broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: to.Events("")})
	recorder := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: managedBy, Host: node})
	r.tell = func(chart *helmv1.HelmChart, n note) {
		text := n.text
		if len(text) > most {
			text = text[:most-3] + "..."
		}
		recorder.Event(&corev1.ObjectReference{
			APIVersion: helmv1.SchemeGroupVersion.String(), Kind: "HelmChart", Namespace: chart.Namespace, Name: chart.Name, UID: chart.UID,
		}, n.severity, n.reason, text)
	}
	return func() {
		watch.Stop()
		broadcaster.Shutdown()
	}
}
