package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/testvm/kube"
)

// withData is a pod with the claim "data" at /data, and no node of its own.
func withData(name string, args ...string) *corev1.Pod {
	pod := kube.Pod{Namespace: "default", Name: name, Image: workloadImage, Args: args}.Object()
	pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
	}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	return pod
}

// ends makes the pod, waits until it has succeeded, removes it, and returns the node it ran on and what it printed.
func (c *cluster) ends(client *kube.Client, pod *corev1.Pod) (node, output string) {
	c.t.Helper()
	pods := client.CoreV1().Pods(pod.Namespace)
	if _, err := pods.Create(within(c.t, changeLimit), pod, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	c.until("the pod "+pod.Name, func() error {
		p, err := pods.Get(within(c.t, changeLimit), pod.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if node = p.Spec.NodeName; p.Status.Phase != corev1.PodSucceeded {
			return fmt.Errorf("it is %s: %+v", p.Status.Phase, p.Status.Conditions)
		}
		return nil
	})
	output, err := client.Logs(within(c.t, changeLimit), pod.Namespace, pod.Name)
	if err == nil {
		err = pods.Delete(within(c.t, changeLimit), pod.Name, metav1.DeleteOptions{})
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return node, output
}

// A claim without a class gets a folder of the machine that its first pod came to; the next pod, and one after a restart of
// both machines, come to the same and find what was written; a claim that is removed takes its folder along.
func TestStorage(t *testing.T) {
	c := newCluster(t)
	client := c.pair(nil)
	ctx := within(t, readyLimit)
	if err := client.DaemonSetReady(ctx, "kube-system", "local-path", len(c.all)); err != nil {
		t.Fatal(err)
	}
	claims := client.CoreV1().PersistentVolumeClaims("default")
	if _, err := claims.Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const text = "written once"
	user := withData("writer", "write", "/data/file", text)
	number := int64(1234) // any user may write
	user.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &number}
	home, _ := c.ends(client, user)
	claim, err := claims.Get(ctx, "data", metav1.GetOptions{})
	if err != nil || claim.Status.Phase != corev1.ClaimBound || *claim.Spec.StorageClassName != "local-path" {
		t.Fatalf("the claim: %+v, %v", claim, err)
	}
	reads := func(name string) {
		t.Helper()
		if node, got := c.ends(client, withData(name, "cat", "/data/file")); node != home || strings.TrimSpace(got) != text {
			t.Errorf("%s on %s: got %q, want what was written on %s", name, node, got, home)
		}
	}
	reads("next")

	for _, name := range c.names() {
		if err := c.all[name].Shutdown(within(t, stopLimit)); err != nil {
			t.Fatal(err)
		}
	}
	c.start(c.all["server-1"], c.all["agent-1"])
	client = c.client(c.all["server-1"])
	c.whole(client)
	reads("after-restart")

	name := claim.Spec.VolumeName
	volume, err := client.CoreV1().PersistentVolumes().Get(within(t, changeLimit), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	folder := volume.Spec.HostPath.Path
	if want := "/var/lib/rancher/rke2/storage/" + name + "_default_data"; folder != want {
		t.Errorf("the folder: got %s, want %s", folder, want)
	}
	if err := client.CoreV1().PersistentVolumeClaims("default").Delete(within(t, changeLimit), "data", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.until("the volume is gone", func() error {
		_, err := client.CoreV1().PersistentVolumes().Get(within(t, changeLimit), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("it is there"))
	})
	pod := kube.Pod{Namespace: "kube-system", Name: "look", Image: workloadImage, Args: []string{"cat", "/proc/1/root" + folder + "/file"}, Host: true, Node: home}
	if output, err := client.RunPod(within(t, changeLimit), pod); err == nil || !strings.Contains(output+err.Error(), "no such file") {
		t.Errorf("the folder of a claim that is gone: got %q, %v", output, err)
	}
}
