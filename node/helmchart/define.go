package helmchart

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

// HelmChart and HelmChartConfig: RKE2's kinds (k3s-io/helm-controller pkg/apis/helm.cattle.io/v1), but for one thing. There
// failurePolicy is `reinstall` where nobody says so, by which an upgrade that failed has uninstalled what worked; here nobody
// having said so is seen as such, and is `retry`.
var (
	//go:embed helmchart.yaml
	definitionOfCharts []byte
	//go:embed helmchartconfig.yaml
	definitionOfConfigs []byte
)

// Define makes the kinds known, and returns when they are served.
func Define(ctx context.Context, client dynamic.Interface) error {
	for _, text := range [][]byte{definitionOfCharts, definitionOfConfigs} {
		crd := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(text, &crd.Object); err != nil {
			return fmt.Errorf("definition of charts: %w", err)
		}
		if err := define(ctx, client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}), crd); err != nil {
			return fmt.Errorf("define %s: %w", crd.GetName(), err)
		}
	}
	return nil
}

func define(ctx context.Context, kinds dynamic.ResourceInterface, crd *unstructured.Unstructured) error {
	applied, err := kinds.Apply(ctx, crd.GetName(), crd, metav1.ApplyOptions{FieldManager: managedBy, Force: true})
	if err != nil {
		return err
	}
	changes, err := kinds.Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, crd.GetName()).String(), ResourceVersion: applied.GetResourceVersion(),
	})
	if err != nil {
		return err
	}
	defer changes.Stop()
	for !established(applied) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-changes.ResultChan():
			if !ok {
				return errors.New("the watch of the definition has ended")
			}
			next, is := e.Object.(*unstructured.Unstructured)
			if !is {
				return apierrors.FromObject(e.Object)
			}
			applied = next
		}
	}
	return nil
}

// established tells whether a kind is served.
func established(crd *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == "Established" && m["status"] == "True" {
			return true
		}
	}
	return false
}
