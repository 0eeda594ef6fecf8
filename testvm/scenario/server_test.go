package scenario

import (
	"context"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"keelson/testvm/kube"
	"keelson/testvm/machine"
	"keelson/testvm/qemu"
)

// server is the machine that scenarios 1, 3 and 7 share, UEFI, Ready.
type server struct {
	*machine.Machine
	client *kube.Client
}

// sharedServer boots it for the first scenario that asks. A scenario that
// fails takes it along, and the next one gets another.
func sharedServer(t *testing.T) *server {
	t.Helper()
	if the.server == nil {
		s := &server{Machine: makeMachine(t, qemu.UEFI, nil)}
		the.server = s
		t.Cleanup(func() { dropIfFailed(t) })
		start(t, s.Machine)
		s.client = becomesReady(t, s.Machine)
		the.ready = time.Since(s.Started())
		t.Logf("node Ready %.1f s after power-on", the.ready.Seconds())
		return s
	}
	t.Cleanup(func() { dropIfFailed(t) })
	return the.server
}

func dropIfFailed(t *testing.T) {
	if t.Failed() && the.server != nil {
		report(t, the.server.Machine)
		if err := the.server.Remove(); err != nil {
			t.Log(err)
		}
		the.server = nil
	}
}

// systemPods are the names, or their beginnings, of what a server runs.
func systemPods(node string) []string {
	return []string{
		"etcd-" + node, "kube-apiserver-" + node, "kube-controller-manager-" + node, "kube-scheduler-" + node,
		"cloud-controller-manager-" + node, "kube-proxy-" + node, "coredns-", "kube-flannel-ds-",
	}
}

// systemReady waits for all of kube-system.
func systemReady(t *testing.T, c *kube.Client) []*corev1.Pod {
	t.Helper()
	ctx := within(t, readyLimit)
	node, err := c.NodeReady(ctx)
	if err != nil {
		t.Fatal(err)
	}
	pods, err := c.PodsReady(ctx, "kube-system", systemPods(node.Name)...)
	if err != nil {
		t.Fatal(err)
	}
	return pods
}

// The workload: a Deployment of two and its Service.
const (
	web         = "web"
	webReplicas = 2
	webPort     = 8080
)

// ensureWeb makes the workload if it is not there, waits until it serves and
// returns its Service.
func ensureWeb(t *testing.T, c *kube.Client) *corev1.Service {
	t.Helper()
	ctx := within(t, changeLimit)
	labels := map[string]string{"app": web}
	template := kube.Pod{Name: web, Image: workloadImage, Args: []string{"serve", ":8080"}}.Object()
	template.Spec.RestartPolicy = corev1.RestartPolicyAlways
	template.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
		HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(webPort)},
	}}
	replicas := int32(webReplicas)
	_, err := c.AppsV1().Deployments("default").Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: web},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: template.Spec},
		},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	_, err = c.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: web},
		Spec: corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{
			Port: 80, TargetPort: intstr.FromInt32(webPort),
		}}},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	if err := c.DeploymentReady(ctx, "default", web); err != nil {
		t.Fatal(err)
	}
	service, err := c.CoreV1().Services("default").Get(ctx, web, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return service
}

// webPods are the names of the workload's pods.
func webPods(ctx context.Context, t *testing.T, c *kube.Client) []corev1.Pod {
	t.Helper()
	list, err := c.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=" + web})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// asks runs a pod of its own that asks the workload for its name under a URL.
func asks(t *testing.T, c *kube.Client, url string) {
	t.Helper()
	ctx := within(t, changeLimit)
	answer, err := c.RunPod(ctx, kube.Pod{Namespace: "default", Name: "asker", Image: workloadImage, Args: []string{"get", url}})
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	for _, p := range webPods(ctx, t, c) {
		if strings.Contains(answer, p.Name+"\n") {
			return
		}
	}
	t.Fatalf("%s: got %q, want the name of one of the pods", url, answer)
}
