package networkpolicy

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// inside is set in the process that has a network of its own.
const inside = "KEELSON_NETWORKPOLICY_TEST"

// The real iptables and ipset, in a network namespace: a policy becomes rules, follows the pods that it selects, and the
// rules of a pod stay when the program ends.
func TestKeep(t *testing.T) {
	for _, program := range []string{"iptables-save", "ipset"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%v: apt-get install iptables ipset", err)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("needs root: rules of the packet filter")
	}
	if os.Getenv(inside) != "" {
		keep(t)
		return
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKeep$", "-test.v")
	c.Env = append(os.Environ(), inside+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func pod(name, ip string, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: labels, UID: "1"},
		Spec:       corev1.PodSpec{NodeName: "cp-1", Containers: []corev1.Container{{Name: "c", Env: []corev1.EnvVar{{Name: "SECRET", Value: "x"}}}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, HostIP: "192.0.2.1"},
	}
}

func keep(t *testing.T) {
	client := fake.NewClientset(
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "cp-1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
		pod("till", "10.42.0.5", map[string]string{"app": "till"}), pod("guest", "10.42.0.6", nil),
		&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "till-only", Namespace: "shop"}, Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "till"}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "desk"}}}}}},
		}},
	)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	o := Options{Services: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")}, NodePorts: "30000-32767", SyncPeriod: time.Minute, Node: "cp-1"}
	go func() { ended <- Keep(ctx, o, client) }()

	until(t, "the policy's chain and the pod's", func() bool {
		rules := output(t, "iptables-save", "-t", "filter")
		return strings.Contains(rules, "KUBE-NWPLCY-") && strings.Contains(rules, "-d 10.42.0.5/32") && strings.Contains(rules, "-j KUBE-ROUTER-FORWARD")
	})
	if rules := output(t, "iptables-save", "-t", "filter"); !strings.Contains(rules, "-j REJECT") {
		t.Errorf("nothing is refused:\n%s", rules)
	}
	if _, err := client.CoreV1().Pods("shop").Create(t.Context(), pod("desk", "10.42.0.7", map[string]string{"app": "desk"}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the address of a pod that may ask", func() bool { return strings.Contains(output(t, "ipset", "save"), "10.42.0.7") })
	if sets := output(t, "ipset", "save"); strings.Contains(sets, "10.42.0.6") {
		t.Errorf("a pod that no policy names is in a set:\n%s", sets)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("end: got %v", err)
	}
	if rules := output(t, "iptables-save", "-t", "filter"); !strings.Contains(rules, "10.42.0.5") {
		t.Errorf("the rules are gone with the program:\n%s", rules)
	}
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	b, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, b)
	}
	return string(b)
}

// until asks again and again: the packet filter tells nobody.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !is(); {
		if time.Now().After(limit) {
			t.Fatalf("never came: %s\n%s\n%s", what, output(t, "iptables-save"), output(t, "ipset", "save"))
		}
	}
}

func TestKeepSays(t *testing.T) {
	if _, err := exec.LookPath("ipset"); err != nil {
		t.Skipf("%v: apt-get install iptables ipset", err)
	}
	o := Options{Services: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")}, NodePorts: "30000-32767", SyncPeriod: time.Minute, Node: "cp-1"}
	if err := Keep(t.Context(), o, fake.NewClientset()); err == nil || !strings.Contains(err.Error(), "unable to get node cp-1") {
		t.Errorf("without its Node: got %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if err := Keep(t.Context(), o, fake.NewClientset()); err == nil || !strings.Contains(err.Error(), "find iptables and ipset") {
		t.Errorf("without programs: got %v", err)
	}
	if err := Run(t.Context(), Options{Kubeconfig: "/nowhere"}); err == nil || !strings.Contains(err.Error(), "read kubeconfig") {
		t.Errorf("without kubeconfig: got %v", err)
	}
}

// A controller that beats is left alone; one that does not is told of, and left when it does not stop then either.
func TestListen(t *testing.T) {
	for _, c := range []struct {
		name       string
		beats      int
		stops      bool
		wantStuck  int
		wantSpent  time.Duration
		afterStuck bool
	}{
		{"stops by itself", 5, true, 0, 5 * time.Second, false},
		{"stuck, and stops when told", 2, false, 1, 12 * time.Second, true},
		{"stuck for good", 0, false, 1, 20 * time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				beats, stopped, stuck := make(chan int), make(chan struct{}), 0
				go func() {
					for i := range c.beats {
						time.Sleep(time.Second) // of the test's own clock
						beats <- i
					}
					if c.stops {
						close(stopped)
					}
				}()
				begin := time.Now()
				listen(beats, stopped, 10*time.Second, func() {
					stuck++
					if c.afterStuck {
						close(stopped)
					}
				})
				if stuck != c.wantStuck || time.Since(begin) != c.wantSpent {
					t.Errorf("got stuck %d times after %v, want %d after %v", stuck, time.Since(begin), c.wantStuck, c.wantSpent)
				}
			})
		})
	}
}

func TestEnded(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errStuck)
	if err := ended(ctx); !errors.Is(err, errStuck) {
		t.Errorf("stuck: got %v", err)
	}
	ctx, cancel = context.WithCancelCause(t.Context())
	cancel(nil)
	if err := ended(ctx); err != nil {
		t.Errorf("told to end: got %v", err)
	}
}

func TestSlim(t *testing.T) {
	p := pod("till", "10.42.0.5", map[string]string{"app": "till"})
	p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	p.Annotations = map[string]string{"big": "x", "kube-router.io/netpol-nflog-limit": "5/minute"}
	p.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "web", ContainerPort: 80}}
	got, err := slim(p)
	if err != nil {
		t.Fatal(err)
	}
	kept := got.(*corev1.Pod)
	if len(kept.ManagedFields) != 0 || len(kept.Annotations) != 1 || kept.Spec.Containers[0].Env != nil {
		t.Errorf("kept what nobody reads: %+v", kept)
	}
	if kept.Spec.NodeName != "cp-1" || kept.Status.PodIP != "10.42.0.5" || kept.Labels["app"] != "till" || kept.Spec.Containers[0].Ports[0].Name != "web" {
		t.Errorf("lost what is read: %+v", kept)
	}
	if got, err := slim("something else"); err != nil || got != "something else" {
		t.Errorf("got %v, %v", got, err)
	}
}
