package clusterreset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson/node/nodeobject"
)

// nodePassword ends the names of the Secrets that hold nodes' passwords (k3s pkg/nodepassword).
const nodePassword = ".node-password.rke2"

// Pending tells whether Finish has something to do.
func Pending(dataDir string) (bool, error) {
	f, err := loadFlag(dataDir)
	return f != nil && f.Done, err
}

// Finish does in the cluster what follows a reset, once kube-apiserver serves: the servers' node passwords are
// forgotten, because servers whose disks are gone come back with new ones. That gives nothing away: who may use them
// has the server token. Agents keep theirs. With keepFlag the settings still ask for the reset, and the flag stays to
// keep it from being made again.
func Finish(ctx context.Context, client kubernetes.Interface, dataDir, nodeName string, keepFlag bool) error {
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("after the reset: list nodes: %w", err)
	}
	names := []string{nodeName}
	for _, n := range nodes.Items {
		if n.Labels[nodeobject.LabelEtcd] == "true" || n.Labels[nodeobject.LabelControlPlane] == "true" {
			names = append(names, n.Name)
		}
	}
	for _, name := range names {
		err := client.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, strings.ToLower(name)+nodePassword, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("after the reset: forget the node password of %s: %w", name, err)
		}
	}
	if keepFlag {
		return nil
	}
	if err := os.Remove(flagPath(dataDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("after the reset: %w", err)
	}
	return nil
}
