package cluster

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	corev1 "k8s.io/api/core/v1"

	"keelson/testvm/kube"
	"keelson/testvm/netns"
)

// NetworkPolicies hold on every node, for pods of the same node and of another and for both families: nothing comes in, then what one label, one
// namespace and one port may, then nothing goes out; and without a policy everything is as before. What the kubelet probes
// is Ready all the while.
func TestNetworkPolicies(t *testing.T) {
	c := newCluster(t)
	c.families = netns.DualStack
	client := c.pair(map[string]any{"cluster-cidr": dualPods, "service-cidr": dualServices})
	service := c.ensureWeb(client)
	ctx := within(t, changeLimit)
	if _, err := client.PodsReady(ctx, "kube-system", "network-policy-"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "elsewhere", Labels: map[string]string{"trust": "yes"}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	askers := []kube.Pod{{Namespace: "default", Name: "friend"}, {Namespace: "default", Name: "stranger"}, {Namespace: "elsewhere", Name: "visitor"}}
	for i := range askers {
		askers[i].Image, askers[i].Node, askers[i].Args = workloadImage, "agent-1", []string{"hold"}
		if err := client.PodRunning(ctx, askers[i]); err != nil {
			t.Fatal(err)
		}
	}
	urls := []string{service}
	if pods := c.pods(client); len(pods["server-1"].Status.PodIPs) != 2 {
		t.Fatalf("pods have the addresses %v, want one of each family", pods["server-1"].Status.PodIPs)
	}
	for _, p := range c.pods(client) {
		for _, ip := range p.Status.PodIPs {
			urls = append(urls, httpURL(ip.IP, webPort))
		}
	}
	// can holds who reaches the workload, on both nodes and by the Service, against who may.
	can := func(when string, want ...string) {
		t.Helper()
		for _, asker := range askers {
			verb := "deny"
			for _, name := range want {
				if name == asker.Name {
					verb = "get"
				}
			}
			command := append([]string{"/workload", verb}, urls...)
			if output, err := client.Exec(within(t, changeLimit), kube.WebSocket, asker.Namespace, asker.Name, command...); err != nil {
				t.Errorf("%s: %s: %s: %v: %s", when, asker.Name, verb, err, output)
			}
		}
	}
	policies := client.NetworkingV1().NetworkPolicies("default")
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: web}, Spec: networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": web}}, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
	}}
	update := func(rules ...networkingv1.NetworkPolicyIngressRule) {
		t.Helper()
		policy.Spec.Ingress = rules
		if _, err := policies.Update(within(t, changeLimit), policy, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	ports := func(n int) []networkingv1.NetworkPolicyPort {
		port := intstr.FromInt(n)
		return []networkingv1.NetworkPolicyPort{{Port: &port}}
	}
	friends := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "friend"}}}
	trusted := networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"trust": "yes"}}}

	can("without a policy", "friend", "stranger", "visitor")
	if _, err := policies.Create(ctx, policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	can("nothing comes in")
	update(networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{friends}, Ports: ports(webPort)})
	can("one label on one port", "friend")
	update(networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{friends}, Ports: ports(webPort + 1)})
	can("another port")
	update(networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{friends, trusted}})
	can("one label, or one namespace", "friend", "visitor")

	out := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "out"}, Spec: networkingv1.NetworkPolicySpec{
		PodSelector: *friends.PodSelector, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
	}}
	if _, err := policies.Create(within(t, changeLimit), out, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	can("nothing goes out", "visitor")
	for _, name := range []string{"out", web} {
		if err := policies.Delete(within(t, changeLimit), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	can("without a policy again", "friend", "stranger", "visitor")
	if err := client.DaemonSetReady(within(t, changeLimit), "default", web, len(c.all)); err != nil {
		t.Errorf("the workload's pods, which the kubelet probes: %v", err)
	}
}
