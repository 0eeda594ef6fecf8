package kube

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	k8stesting "k8s.io/client-go/testing"
)

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func node(ready corev1.ConditionStatus, boot string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "cp-1", Labels: map[string]string{
			roleLabel + "etcd": "true", roleLabel + "control-plane": "true", "kubernetes.io/os": "linux",
		}},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready, Reason: "KubeletNotReady", Message: "no CNI"}},
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.2.15"}},
			NodeInfo: corev1.NodeSystemInfo{
				BootID: boot, KubeletVersion: "v1.37.2+keelson1", OSImage: "Keelson 1", KernelVersion: "6.12", ContainerRuntimeVersion: "containerd://2.4.2",
			},
		},
	}
}

func pod(name string, ready bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "kube-system"}}
	p.Status.Phase = corev1.PodPending
	if ready {
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	} else {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{
			Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no such host"},
		}}}
	}
	return p
}

// watched tells when a fake's client has begun to watch a kind, so that a
// change is made under the eyes of the wait.
func watched(set *fake.Clientset, kind string) <-chan struct{} {
	began := make(chan struct{})
	tracker := set.Tracker()
	set.PrependWatchReactor(kind, func(a k8stesting.Action) (bool, watch.Interface, error) {
		w, err := tracker.Watch(a.GetResource(), a.GetNamespace())
		select {
		case <-began:
		default:
			close(began)
		}
		return true, w, err
	})
	return began
}

func TestNodeReadyWaitsForTheChange(t *testing.T) {
	ctx := testContext(t)
	set := fake.NewClientset(node(corev1.ConditionFalse, "one"))
	began := watched(set, "nodes")
	go func() {
		<-began
		if _, err := set.CoreV1().Nodes().Update(ctx, node(corev1.ConditionTrue, "one"), metav1.UpdateOptions{}); err != nil {
			t.Error(err)
		}
	}()
	n, err := (&Client{Interface: set}).NodeReady(ctx)
	if err != nil || n.Name != "cp-1" {
		t.Errorf("NodeReady: got %v, %v, want cp-1", n, err)
	}
}

func TestNodeReadySinceIgnoresTheBootBefore(t *testing.T) {
	ctx := testContext(t)
	set := fake.NewClientset(node(corev1.ConditionTrue, "one"))
	began := watched(set, "nodes")
	go func() {
		<-began
		if _, err := set.CoreV1().Nodes().Update(ctx, node(corev1.ConditionTrue, "two"), metav1.UpdateOptions{}); err != nil {
			t.Error(err)
		}
	}()
	n, err := (&Client{Interface: set}).NodeReadySince(ctx, "one")
	if err != nil || n.Status.NodeInfo.BootID != "two" {
		t.Errorf("NodeReadySince: got %v, %v, want the second boot", n, err)
	}
}

// givenUp runs a wait that cannot succeed and ends it once it looked.
func givenUp(t *testing.T, wait func(ctx context.Context, c *Client) error, objects ...runtime.Object) error {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	set := fake.NewClientset(objects...)
	defer cancel()
	return wait(ctx, &Client{Interface: set, looked: cancel})
}

func TestWaitsInVainSayWhatTheySaw(t *testing.T) {
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", Generation: 2}}
	two := int32(2)
	deployment.Spec.Replicas = &two
	deployment.Status.ObservedGeneration, deployment.Status.AvailableReplicas, deployment.Status.UpdatedReplicas = 1, 2, 2
	stuck := pod("web-1", false)
	stuck.Namespace = "default"

	nodeReady := func(ctx context.Context, c *Client) error { _, err := c.NodeReady(ctx); return err }
	podsReady := func(ctx context.Context, c *Client) error {
		_, err := c.PodsReady(ctx, "kube-system", "etcd-")
		return err
	}
	deploymentReady := func(ctx context.Context, c *Client) error { return c.DeploymentReady(ctx, "default", "web") }
	runPod := func(ctx context.Context, c *Client) error {
		_, err := c.RunPod(ctx, Pod{Namespace: "default", Name: "x"})
		return err
	}
	for _, c := range []struct {
		name    string
		wait    func(context.Context, *Client) error
		objects []runtime.Object
		want    string
	}{
		{"node not Ready", nodeReady, []runtime.Object{node(corev1.ConditionFalse, "one")}, "cp-1: Ready is False: KubeletNotReady: no CNI"},
		{"no node", nodeReady, nil, "there is no node"},
		{"pod waits", podsReady, []runtime.Object{pod("etcd-cp-1", true), pod("coredns-1", false)}, "coredns-1: Pending, main waits: ImagePullBackOff no such host"},
		{"pod missing", podsReady, []runtime.Object{pod("coredns-1", true)}, "etcd-: there is no such pod"},
		{"deployment of an older generation", deploymentReady, []runtime.Object{deployment, stuck}, "pod web-1: Pending"},
		{"no service account", runPod, nil, "no service account yet"},
		{"no deployment", deploymentReady, nil, "it does not exist"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := givenUp(t, c.wait, c.objects...)
			if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error: got %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestPodsReady(t *testing.T) {
	set := fake.NewClientset(pod("etcd-cp-1", true), pod("coredns-1", true))
	pods, err := (&Client{Interface: set}).PodsReady(testContext(t), "kube-system", "etcd-", "coredns-")
	if err != nil || len(pods) != 2 {
		t.Errorf("PodsReady: got %d pods, %v, want two", len(pods), err)
	}
}

func TestUnreadyNamesWhatEnded(t *testing.T) {
	p := pod("etcd-cp-1", true)
	if got := Unready([]*corev1.Pod{p}); len(got) != 0 {
		t.Errorf("a ready pod: got %v", got)
	}
	now := metav1.Now()
	p.DeletionTimestamp = &now
	if got := Unready([]*corev1.Pod{p}); len(got) != 1 || !strings.Contains(got[0], "being deleted") {
		t.Errorf("a pod that is being deleted: got %v", got)
	}
	q := pod("x", false)
	q.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Error", ExitCode: 3}}
	if got := Unready([]*corev1.Pod{q}); len(got) != 1 || !strings.Contains(got[0], "main ended: Error, status 3") {
		t.Errorf("a pod that ended: got %v", got)
	}
}

// running makes a cluster whose pods are in a phase as soon as they are created.
func running(phase corev1.PodPhase) (*fake.Clientset, *Client) {
	set := fake.NewClientset(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "default"}})
	set.PrependReactor("create", "pods", func(a k8stesting.Action) (bool, runtime.Object, error) {
		a.(k8stesting.CreateAction).GetObject().(*corev1.Pod).Status.Phase = phase
		return false, nil, nil
	})
	return set, &Client{Interface: set}
}

func TestRunPod(t *testing.T) {
	ctx := testContext(t)
	set, c := running(corev1.PodSucceeded)
	out, err := c.RunPod(ctx, Pod{Namespace: "default", Name: "asker", Image: "workload:1", Args: []string{"get", "http://web"}})
	if err != nil || out != "fake logs" {
		t.Errorf("RunPod: got %q, %v, want the pod's output", out, err)
	}
	if left, err := set.CoreV1().Pods("default").List(ctx, metav1.ListOptions{}); err != nil || len(left.Items) != 0 {
		t.Errorf("pods left: got %d, %v, want none", len(left.Items), err)
	}
	_, c = running(corev1.PodFailed)
	if _, err := c.RunPod(ctx, Pod{Namespace: "default", Name: "asker", Image: "workload:1"}); err == nil || !strings.Contains(err.Error(), "it failed: fake logs") {
		t.Errorf("a pod that fails: got %v, want its output in the error", err)
	}
	_, c = running(corev1.PodRunning)
	if err := c.PodRunning(ctx, Pod{Namespace: "default", Name: "server", Image: "workload:1"}); err != nil {
		t.Error(err)
	}
	if err := c.PodRunning(ctx, Pod{Namespace: "default", Name: "server", Image: "workload:1"}); err == nil {
		t.Error("a second pod of the same name: got no error")
	}
}

func TestHostPodIsPrivileged(t *testing.T) {
	p := Pod{Name: "killer", Image: "workload:1", Host: true}.Object()
	if !p.Spec.HostPID || !*p.Spec.Containers[0].SecurityContext.Privileged {
		t.Error("a host pod must share the node's processes and may do everything")
	}
	if p := (Pod{Name: "web"}).Object(); p.Spec.HostPID || p.Spec.Containers[0].SecurityContext != nil {
		t.Error("an ordinary pod must not be privileged")
	}
}

func TestPrintNode(t *testing.T) {
	n := node(corev1.ConditionTrue, "one")
	now := time.Unix(1000, 0)
	n.CreationTimestamp = metav1.NewTime(now.Add(-62 * time.Second))
	var out bytes.Buffer
	if err := PrintNode(&out, n, now); err != nil {
		t.Fatal(err)
	}
	want := "NAME   STATUS   ROLES                AGE    VERSION            INTERNAL-IP   EXTERNAL-IP   OS-IMAGE    KERNEL-VERSION   CONTAINER-RUNTIME\n" +
		"cp-1   Ready    control-plane,etcd   1m2s   v1.37.2+keelson1   10.0.2.15     <none>        Keelson 1   6.12             containerd://2.4.2\n"
	if out.String() != want {
		t.Errorf("PrintNode: got\n%swant\n%s", out.String(), want)
	}
	bare := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
	out.Reset()
	if err := PrintNode(&out, bare, now); err != nil || !strings.Contains(out.String(), "NotReady   <none>") {
		t.Errorf("a node that says nothing: got %q, %v", out.String(), err)
	}
}

func TestNewRefusesNonsense(t *testing.T) {
	if _, err := New(&rest.Config{Host: "https://127.0.0.1:1", TLSClientConfig: rest.TLSClientConfig{CAData: []byte("no certificate")}}); err == nil {
		t.Error("a configuration with a broken CA: got no error")
	}
}
