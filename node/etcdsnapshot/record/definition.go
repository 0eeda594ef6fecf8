package record

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

//go:embed definition.yaml
var definition []byte

func definitions() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
}

// Established is how long kube-apiserver may take from a definition to its first object, and between looks.
const (
	established = 15 * time.Second
	askEvery    = 200 * time.Millisecond
)

// define makes the resource known, as k3s does in code, and waits until objects of it can be listed.
func (r *Records) define(ctx context.Context) error {
	var u unstructured.Unstructured
	if err := yaml.Unmarshal(definition, &u.Object); err != nil {
		return fmt.Errorf("define snapshot records: %w", err)
	}
	_, err := r.client.Resource(definitions()).Create(ctx, &u, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("define snapshot records: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, established)
	defer cancel()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		_, err := r.client.Resource(Resource()).List(ctx, metav1.ListOptions{Limit: 1})
		if !apierrors.IsNotFound(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("define snapshot records: %w", err)
		case <-tick.C:
		}
	}
}
