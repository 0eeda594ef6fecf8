// Package localpath gives claims of the storage class local-path their volumes: folders on the machine that the pod was
// scheduled to.
//
// Upstream's provisioner (rancher/local-path-provisioner) is one pod, which starts a privileged pod with a shell for each
// folder that it wants made or removed. Here every machine has a pod that makes the folders of its own, with names and
// objects as upstream makes them, so that its volumes are known here. It never touches a folder that is not directly in
// its own, and never asks how full a volume is: the requested size is not enforced. What it reads are the cluster's claims
// and volumes, by the library that CSI's provisioner is made of. The bundle runs it, in the pods of
// configs/manifests/local-path.yaml.
package localpath

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// Run serves the claims of this machine until ctx is done.
func Run(ctx context.Context, o Options) error {
	config, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make client for volumes: %w", err)
	}
	return serve(ctx, client, o)
}

func serve(ctx context.Context, client kubernetes.Interface, o Options) error {
	root, err := os.OpenRoot(o.Dir)
	if err != nil {
		return fmt.Errorf("open the folder of the volumes: %w", err)
	}
	defer root.Close()
	// Volumes are open to every user of the pods that have them, and to nobody else.
	if err := root.Chmod(".", 0o700); err != nil {
		return fmt.Errorf("close the folder of the volumes to others: %w", err)
	}
	// Every machine serves its own claims: there is no one to be elected.
	controller.NewProvisionController(ctx, client, Provisioner, &machine{o.Node, o.Dir, root, client},
		controller.LeaderElection(false), controller.MetricsPort(0), controller.Threadiness(2)).Run(ctx)
	return nil
}

// machine makes and removes the folders of one node.
type machine struct {
	node, dir string
	root      *os.Root
	client    kubernetes.Interface
}

// ShouldProvision tells whether the scheduler chose this machine.
func (m *machine) ShouldProvision(_ context.Context, claim *corev1.PersistentVolumeClaim) bool {
	return claim.Annotations[storagehelpers.AnnSelectedNode] == m.node
}

// Provision makes the folder of a claim.
func (m *machine) Provision(_ context.Context, o controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	refuse := func(err error) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
		return nil, controller.ProvisioningFinished, err
	}
	for _, mode := range o.PVC.Spec.AccessModes {
		if mode != corev1.ReadWriteOnce && mode != corev1.ReadWriteOncePod {
			return refuse(fmt.Errorf("access mode %s: a folder of one machine takes ReadWriteOnce or ReadWriteOncePod", mode))
		}
	}
	if o.PVC.Spec.Selector != nil {
		return refuse(errors.New("selector: volumes are made for the claim, there are none to select from"))
	}
	name := o.PVName + "_" + o.PVC.Namespace + "_" + o.PVC.Name
	if err := m.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return refuse(fmt.Errorf("make the volume's folder: %w", err))
	}
	if err := m.root.Chmod(name, 0o777); err != nil { // whatever user the pod runs as
		return refuse(fmt.Errorf("open the volume's folder to the pod: %w", err))
	}
	// A folder that is gone is not made again behind the back of whoever had data in it.
	kind := corev1.HostPathDirectory
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: o.PVName, Annotations: map[string]string{"local.path.provisioner/selected-node": m.node}},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *o.StorageClass.ReclaimPolicy,
			AccessModes:                   o.PVC.Spec.AccessModes,
			VolumeMode:                    o.PVC.Spec.VolumeMode,
			MountOptions:                  o.StorageClass.MountOptions,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: o.PVC.Spec.Resources.Requests[corev1.ResourceStorage]},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: filepath.Join(m.dir, name), Type: &kind},
			},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{m.node}}},
			}}}},
		},
	}, controller.ProvisioningFinished, nil
}

// ShouldDelete tells whether a volume is this machine's, or of one that the cluster has no more.
func (m *machine) ShouldDelete(ctx context.Context, volume *corev1.PersistentVolume) bool {
	if volume.Status.Phase != corev1.VolumeReleased {
		return false
	}
	nodes := nodesOf(volume)
	if slices.Contains(nodes, m.node) {
		return true
	}
	for _, node := range nodes {
		if _, err := m.client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return false
		}
	}
	return len(nodes) > 0
}

// Delete removes a volume's folder with all that is in it. Of a machine that is gone there is nothing to remove.
func (m *machine) Delete(_ context.Context, volume *corev1.PersistentVolume) error {
	if !slices.Contains(nodesOf(volume), m.node) {
		return nil
	}
	path := ""
	switch {
	case volume.Spec.HostPath != nil:
		path = volume.Spec.HostPath.Path
	case volume.Spec.Local != nil:
		path = volume.Spec.Local.Path
	}
	name := filepath.Base(path)
	if filepath.Join(m.dir, name) != path || name == "." || name == ".." {
		return fmt.Errorf("remove volume %s: its folder %q is not one in %s: remove it by hand, and then the PersistentVolume", volume.Name, path, m.dir)
	}
	if err := m.root.RemoveAll(name); err != nil {
		return fmt.Errorf("remove volume %s: %w", volume.Name, err)
	}
	return nil
}

// nodesOf are the nodes that a volume can be used on, as a provisioner of this kind writes them.
func nodesOf(volume *corev1.PersistentVolume) []string {
	if volume.Spec.NodeAffinity == nil || volume.Spec.NodeAffinity.Required == nil {
		return nil
	}
	var nodes []string
	for _, term := range volume.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for _, e := range term.MatchExpressions {
			if e.Key == corev1.LabelHostname && e.Operator == corev1.NodeSelectorOpIn {
				nodes = append(nodes, e.Values...)
			}
		}
	}
	return nodes
}
