package kubelet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// remadeVolumes are kinds of volumes whose content the kubelet makes anew with each pod that it starts (k8s.io/kubernetes
// pkg/volume: projected, secret, configmap, downwardapi).
func remadeVolumes() []string {
	return []string{"kubernetes.io~projected", "kubernetes.io~secret", "kubernetes.io~configmap", "kubernetes.io~downward-api"}
}

// RemoveStaleVolumes takes away what is left of such volumes from before the machine started, in the kubelet's folder.
// A kubelet that finds a volume on its disk asks kube-apiserver for its Node before it mounts any other, and again after each answer that does
// not come (pkg/kubelet/volumemanager/reconciler, updateReconstructedFromNodeStatus): 10 s for etcd's volumes, and 10 s
// more before its pod starts, since kube-apiserver is what is to come up. Data of pods (emptyDir) stays as it is.
func RemoveStaleVolumes(root string) error {
	var errs []error
	for _, kind := range remadeVolumes() {
		left, err := filepath.Glob(filepath.Join(root, "pods", "*", "volumes", kind))
		if err != nil {
			return fmt.Errorf("look for stale volumes: %w", err)
		}
		for _, dir := range left {
			if err := os.RemoveAll(dir); err != nil {
				errs = append(errs, fmt.Errorf("remove stale volumes: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}
