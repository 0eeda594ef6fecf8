package cluster

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"keelson/testvm/access"
	"keelson/testvm/cidata"
	"keelson/testvm/kube"
	"keelson/testvm/netns"
)

// joins is what user-data of a machine that joins says.
func joins(n int) func(*cidata.CloudConfig) {
	return func(c *cidata.CloudConfig) { c.RKE2["server"] = fmt.Sprintf("https://%s:9345", netns.Address(n)) }
}

// serverNames are those of a cluster that survives the loss of one.
func serverNames() []string { return []string{"server-1", "server-2", "server-3"} }

// newHA makes three servers and an agent, starts them together and waits until all are one cluster.
func newHA(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t)
	var all []*member
	for i, name := range serverNames() {
		change := joins(1)
		if i == 0 {
			change = nil
		}
		all = append(all, c.add(name, "server", i+1, change))
	}
	all = append(all, c.add("agent-1", "agent", 4, joins(1)))
	began := time.Now()
	c.start(all...)
	c.whole(c.client(all[0]))
	t.Logf("3 servers and 1 agent Ready, 3 voters, %.1f s after power-on", time.Since(began).Seconds())
	return c
}

// names of all machines, in order.
func (c *cluster) names() []string { return slices.Sorted(maps.Keys(c.all)) }

// servers of the cluster, in the order of their names.
func (c *cluster) servers() []*member {
	var all []*member
	for _, name := range c.names() {
		if c.all[name].role == "server" {
			all = append(all, c.all[name])
		}
	}
	return all
}

// clients of all servers, in the order of their names.
func (c *cluster) clients() []*kube.Client {
	c.t.Helper()
	var all []*kube.Client
	for _, s := range c.servers() {
		all = append(all, c.client(s))
	}
	return all
}

// whole waits until all machines are Ready nodes, all servers vote, and every kube-apiserver is known.
func (c *cluster) whole(client *kube.Client) {
	c.t.Helper()
	ctx := within(c.t, readyLimit)
	if err := client.NodesReady(ctx, c.names()...); err != nil {
		c.t.Fatal(err)
	}
	var endpoints []string
	for _, m := range c.servers() {
		endpoints = append(endpoints, c.address(m.n, 6443))
	}
	if err := client.APIServersAre(ctx, endpoints...); err != nil {
		c.t.Fatal(err)
	}
	for _, m := range c.servers() {
		c.votersAre(ctx, m, c.servers()...)
	}
}

// votersAre waits until etcd's members, as one server tells, are exactly those given, and all vote.
func (c *cluster) votersAre(ctx context.Context, at *member, want ...*member) {
	c.t.Helper()
	tick := time.NewTicker(200 * time.Millisecond) // of etcd's members there is no watch
	defer tick.Stop()
	for {
		members, err := at.Supervisor().Members(ctx)
		wrong := ""
		if err != nil || len(members) != len(want) {
			wrong = fmt.Sprintf("%+v, %v", members, err)
		}
		for _, m := range want {
			if !slices.ContainsFunc(members, func(has access.Member) bool {
				return strings.HasPrefix(has.Name, m.name+"-") && !has.Learner
			}) {
				wrong = fmt.Sprintf("%s does not vote: %+v, %v", m.name, members, err)
			}
		}
		if wrong == "" {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.t.Fatalf("etcd's members as %s tells them: %s", at.name, wrong)
		}
	}
}

// The workload: a pod on each node, and a Service.
const (
	web     = "web"
	webPort = 8080
)

// ensureWeb makes the workload if it is not there, waits until it serves on every node, and returns the Service's URL.
func (c *cluster) ensureWeb(client *kube.Client) string {
	c.t.Helper()
	ctx := within(c.t, changeLimit)
	labels := map[string]string{"app": web}
	template := kube.Pod{Name: web, Image: workloadImage, Args: []string{"serve", fmt.Sprintf(":%d", webPort)}}.Object()
	template.Spec.RestartPolicy = corev1.RestartPolicyAlways
	template.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	template.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
		HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(webPort)},
	}}
	_, err := client.AppsV1().DaemonSets("default").Create(ctx, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: web},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: template.Spec},
		},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		c.t.Fatal(err)
	}
	both := corev1.IPFamilyPolicyPreferDualStack // of each family that the cluster has
	_, err = client.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: web},
		Spec: corev1.ServiceSpec{
			Selector: labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(webPort)}}, IPFamilyPolicy: &both,
		},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		c.t.Fatal(err)
	}
	if err := client.DaemonSetReady(ctx, "default", web, len(c.all)); err != nil {
		c.t.Fatal(err)
	}
	service, err := client.CoreV1().Services("default").Get(ctx, web, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return httpURL(service.Spec.ClusterIP, 80)
}

// httpURL of a port at an address of either family.
func httpURL(address string, port int) string {
	return "http://" + net.JoinHostPort(address, strconv.Itoa(port))
}

// pods of the workload, by their node's name.
func (c *cluster) pods(client *kube.Client) map[string]corev1.Pod {
	c.t.Helper()
	list, err := client.CoreV1().Pods("default").List(within(c.t, changeLimit), metav1.ListOptions{LabelSelector: "app=" + web})
	if err != nil {
		c.t.Fatal(err)
	}
	all := map[string]corev1.Pod{}
	for _, p := range list.Items {
		all[p.Spec.NodeName] = p
	}
	return all
}

// answersFromEach runs a pod on every node that asks every pod of the workload by its addresses, the Service by address
// and by name, and what else answers with a name of the workload's pods.
func (c *cluster) answersFromEach(client *kube.Client, service string, more ...string) {
	c.t.Helper()
	pods := c.pods(client)
	for _, node := range c.names() {
		urls := append([]string{service, "http://web.default.svc.cluster.local"}, more...)
		for _, p := range pods {
			for _, ip := range p.Status.PodIPs {
				urls = append(urls, httpURL(ip.IP, webPort))
			}
		}
		output, err := client.RunPod(within(c.t, changeLimit), kube.Pod{
			Namespace: "default", Name: "asker-" + node, Image: workloadImage, Node: node, Args: append([]string{"get"}, urls...),
		})
		if err != nil {
			c.t.Fatalf("from %s: %v", node, err)
		}
		for on, p := range pods {
			if !strings.Contains(output, p.Name+"\n") {
				c.t.Errorf("from %s: the pod on %s did not answer: got %q", node, on, output)
			}
		}
		if got := strings.Count(output, web+"-"); got != len(urls) {
			c.t.Errorf("from %s: got %d answers, want %d: %q", node, got, len(urls), output)
		}
	}
}
