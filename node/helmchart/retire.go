package helmchart

import (
	"context"
	"fmt"

	helmv1 "github.com/k3s-io/helm-controller/pkg/apis/helm.cattle.io/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// ownerName is wrangler's mark of the object that another was made for (rancher/wrangler pkg/apply).
const ownerName = "objectset.rio.cattle.io/owner-name"

// retire takes away what RKE2 has made for a chart: a job that may be at work on the release, an account and, above all, its
// binding to cluster-admin. A cluster has them that was RKE2's (k3s-io/helm-controller, getJobAndRelatedResources).
func (r *run) retire(ctx context.Context, chart *helmv1.HelmChart) error {
	if chart.Status.JobName == "" {
		return nil
	}
	batch, rbac := schema.GroupVersion{Group: "batch", Version: "v1"}, schema.GroupVersion{Group: "rbac.authorization.k8s.io", Version: "v1"}
	core := schema.GroupVersion{Version: "v1"}
	for _, o := range []struct {
		resource        schema.GroupVersionResource
		namespace, name string
	}{
		{batch.WithResource("jobs"), chart.Namespace, "helm-install-" + chart.Name},
		{batch.WithResource("jobs"), chart.Namespace, "helm-delete-" + chart.Name},
		{rbac.WithResource("clusterrolebindings"), "", "helm-" + chart.Namespace + "-" + chart.Name},
		{core.WithResource("serviceaccounts"), chart.Namespace, "helm-" + chart.Name},
		{core.WithResource("secrets"), chart.Namespace, "chart-values-" + chart.Name},
		{core.WithResource("configmaps"), chart.Namespace, "chart-content-" + chart.Name},
	} {
		object, err := r.Metadata.Resource(o.resource).Namespace(o.namespace).Get(ctx, o.name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && object.Annotations[ownerName] != chart.Name {
			continue
		}
		if err == nil {
			background := metav1.DeletePropagationBackground
			err = r.Metadata.Resource(o.resource).Namespace(o.namespace).Delete(ctx, o.name, metav1.DeleteOptions{
				PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &object.UID},
			})
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("remove what RKE2 made for the chart: %s %s: %w", o.resource.Resource, o.name, err)
		}
	}
	return nil
}
