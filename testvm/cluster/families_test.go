package cluster

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"keelson/testvm/cidata"
	"keelson/testvm/kube"
	"keelson/testvm/netns"
)

const (
	dualPods, dualServices = "10.42.0.0/16,fd00:42::/56", "10.43.0.0/16,fd00:43::/112"
	pods6, services6       = "fd00:42::/56", "fd00:43::/112"
)

// settings are those of a server, besides the cluster's.
func settings(all map[string]any) func(*cidata.CloudConfig) {
	return func(c *cidata.CloudConfig) {
		for key, value := range all {
			c.RKE2[key] = value
		}
	}
}

// pair makes a server with the settings and an agent, and waits until they are a cluster.
func (c *cluster) pair(change map[string]any) *kube.Client {
	c.t.Helper()
	server := c.add("server-1", "server", 1, settings(change))
	agent := c.add("agent-1", "agent", 2, settings(map[string]any{"server": "https://" + c.address(1, 9345)}))
	c.start(server, agent)
	client := c.client(server)
	c.whole(client)
	return client
}

// serves looks whether pods and Services have an address in each network, and whether every node reaches all of it: pods,
// Services by address, name and port of the nodes, and, from behind the node's address, what is outside the cluster.
func (c *cluster) serves(client *kube.Client, pods, services string) {
	c.t.Helper()
	c.ensureWeb(client)
	ctx := within(c.t, changeLimit)
	for _, p := range c.pods(client) {
		var got []string
		for _, ip := range p.Status.PodIPs {
			got = append(got, ip.IP)
		}
		c.within(p.Name, got, pods)
	}
	both := corev1.IPFamilyPolicyPreferDualStack
	port, err := client.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "port"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeNodePort, IPFamilyPolicy: &both, Selector: map[string]string{"app": web},
			Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(webPort)}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	service, err := client.CoreV1().Services("default").Get(ctx, web, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	c.within("Service web", service.Spec.ClusterIPs, services)
	var urls []string
	for _, ip := range service.Spec.ClusterIPs {
		urls = append(urls, httpURL(ip, 80))
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, n := range nodes.Items {
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				urls = append(urls, httpURL(a.Address, int(port.Spec.Ports[0].NodePort)))
			}
		}
	}
	if want := 2 + len(nodes.Items)*2; len(strings.Split(pods, ",")) == 2 && len(urls) != want {
		c.t.Errorf("addresses to ask: got %q, want %d: both of each node and of the Service", urls, want)
	}
	c.answersFromEach(client, urls[0], urls[1:]...)
	for _, node := range c.names() {
		outside := []string{"get"}
		for _, p := range strings.Split(pods, ",") {
			at := netns.Gateway()
			if strings.Contains(p, ":") {
				at = netns.Gateway6()
			}
			outside = append(outside, httpURL(at.String(), the.registry.Port())+"/v2/")
		}
		pod := kube.Pod{Namespace: "default", Name: "outside-" + node, Image: workloadImage, Node: node, Args: outside}
		if _, err := client.RunPod(within(c.t, changeLimit), pod); err != nil {
			c.t.Errorf("from a pod on %s to the outside: %v", node, err)
		}
	}
	c.dnsAnswers(client, services)
}

// dnsAnswers asks for the Service's name, of which there is an address of each family.
func (c *cluster) dnsAnswers(client *kube.Client, services string) {
	c.t.Helper()
	output, err := client.RunPod(within(c.t, changeLimit), kube.Pod{
		Namespace: "default", Name: "lookup", Image: workloadImage, Args: []string{"lookup", "web.default.svc.cluster.local"},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	found := strings.Fields(output)
	slices.SortFunc(found, func(a, b string) int { // in the order of services
		return strings.Index(services, a[:4]) - strings.Index(services, b[:4])
	})
	c.within("the name's addresses", found, services)
}

// within fails unless there is one address in each of the networks, in their order.
func (c *cluster) within(what string, got []string, networks string) {
	c.t.Helper()
	all := strings.Split(networks, ",")
	fits := len(got) == len(all)
	for i := 0; fits && i < len(got); i++ {
		fits = netip.MustParsePrefix(all[i]).Contains(netip.MustParseAddr(got[i]))
	}
	if !fits {
		c.t.Errorf("%s: got %q, want one address in each of %s", what, got, networks)
	}
}

// A cluster of both families: pods, Services, DNS, ports of nodes and the way out work by each, between nodes.
func TestDualStack(t *testing.T) {
	c := newCluster(t)
	c.families = netns.DualStack
	client := c.pair(map[string]any{"cluster-cidr": dualPods, "service-cidr": dualServices})
	c.serves(client, dualPods, dualServices)
}

// A cluster of IPv6 alone, on machines that have no other address. A second server's etcd joins it.
func TestIPv6Only(t *testing.T) {
	c := newCluster(t)
	c.families = netns.IPv6
	networks := map[string]any{"cluster-cidr": pods6, "service-cidr": services6}
	client := c.pair(networks)
	second := c.add("server-2", "server", 3, func(doc *cidata.CloudConfig) {
		settings(networks)(doc)
		doc.RKE2["server"] = "https://" + c.address(1, 9345)
	})
	c.start(second)
	c.whole(client)
	c.serves(client, pods6, services6)
}

// A cluster changes from vxlan to host-gw. There is no tunnel then, and nothing of the one that was: each node has a route
// to the other's pods of each family, by way of its address.
func TestHostGateway(t *testing.T) {
	c := newCluster(t)
	c.families = netns.DualStack
	client := c.pair(map[string]any{"cluster-cidr": dualPods, "service-cidr": dualServices})
	server := c.all["server-1"]
	c.ensureWeb(client) // with pods that have addresses, flannel is there on each node
	for _, name := range c.names() {
		if links, _ := c.paths(name); !slices.Equal(links, []string{"flannel-v6.1", "flannel.1"}) {
			t.Errorf("%s with vxlan: got links %q", name, links)
		}
	}

	seed := server.seed
	seed.RKE2["flannel-backend"] = "host-gw"
	doc, err := seed.Render()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Reseed(cidata.Volume{UserData: doc}); err != nil {
		t.Fatal(err)
	}
	if err := server.Shutdown(within(t, stopLimit)); err != nil {
		t.Fatal(err)
	}
	c.start(server)
	client = c.client(server)
	ctx := within(t, readyLimit)
	// The pods that are there now are of the new configuration: the DaemonSet has one generation more, and all follow it.
	if err := client.DaemonSetRolled(ctx, "kube-system", "kube-flannel-ds", 2, len(c.all)); err != nil {
		t.Fatal(err)
	}
	c.serves(client, dualPods, dualServices)

	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, here := range nodes.Items {
		var want []string
		for _, there := range nodes.Items {
			if there.Name == here.Name {
				continue
			}
			for i, pods := range there.Spec.PodCIDRs {
				want = append(want, pods+" by "+[]string{netns.Address(c.all[there.Name].n).String(), netns.Address6(c.all[there.Name].n).String()}[i])
			}
		}
		links, routes := c.paths(here.Name)
		slices.Sort(want)
		if len(links) > 0 || !slices.Equal(routes, want) {
			t.Errorf("%s: got links %q and routes %q, want no link and %q", here.Name, links, routes, want)
		}
	}
}

// paths are flannel's links in a machine and its routes by way of somebody, but for those to everywhere.
func (c *cluster) paths(name string) (links, ways []string) {
	c.t.Helper()
	err := c.all[name].Computer.(*netns.Machine).Enter(func() error {
		all, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range all {
			if strings.HasPrefix(l.Attrs().Name, "flannel") {
				links = append(links, l.Attrs().Name)
			}
		}
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			routes, err := netlink.RouteList(nil, family)
			if err != nil {
				return err
			}
			for _, r := range routes {
				if r.Gw != nil && r.Dst != nil && !r.Dst.IP.IsUnspecified() {
					ways = append(ways, r.Dst.String()+" by "+r.Gw.String())
				}
			}
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	slices.Sort(links)
	slices.Sort(ways)
	return links, ways
}
