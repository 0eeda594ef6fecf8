package scenario

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"keelson/testvm/kube"
)

// Reboot: the same node of the same cluster, the workload is back, nothing was
// made anew. The client is the one from before: its certificate and the CA that
// it trusts must still be good.
func TestScenario3Reboot(t *testing.T) {
	needVM(t)
	s := sharedServer(t)
	service := ensureWeb(t, s.client)
	systemReady(t, s.client)
	_, err := s.client.CoreV1().ConfigMaps("default").Create(within(t, changeLimit), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "written-before"}, Data: map[string]string{"key": "value"},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	before := identityOf(t, s)

	ctx := within(t, shutdownLimit)
	if err := s.Monitor().CtrlAltDel(ctx); err != nil {
		t.Fatal(err)
	}
	// QEMU was told to end where the guest resets itself.
	if reason, err := s.Ended(ctx); err != nil || reason != "guest-reset" {
		t.Fatalf("Ctrl-Alt-Del: the machine ended by %q, %v, want guest-reset", reason, err)
	}
	inOrder(t, s.Machine, s.Mark())
	start(t, s.Machine)
	if _, err := s.Booted(within(t, bootLimit)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Milestone(within(t, readyLimit), "apiserver ready"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.NodeReadySince(within(t, readyLimit), before.boot); err != nil {
		t.Fatal(err)
	}
	systemReady(t, s.client)
	ensureWeb(t, s.client) // it exists, so that this waits for it alone
	asks(t, s.client, "http://"+service.Spec.ClusterIP)
	asks(t, s.client, "http://web")

	after := identityOf(t, s)
	if after.boot == before.boot {
		t.Error("boot id: got the one from before the reboot")
	}
	after.boot = before.boot
	for key, want := range before.all() {
		if got := after.all()[key]; got != want {
			t.Errorf("%s: got %s, want %s as before the reboot", key, got, want)
		}
	}
	kept, err := s.client.CoreV1().ConfigMaps("default").Get(within(t, changeLimit), "written-before", metav1.GetOptions{})
	if err != nil || kept.Data["key"] != "value" {
		t.Errorf("object from before the reboot: got %v, %v", kept, err)
	}
}

// identity is what a reboot must not change, but for the boot id.
type identity struct {
	boot, node, machine, cluster, nodes, serving, web string
}

func (i identity) all() map[string]string {
	return map[string]string{
		"node's UID": i.node, "machine id": i.machine, "cluster's UID": i.cluster, "nodes": i.nodes,
		"apiserver's certificate": i.serving, "workload's pods": i.web,
	}
}

func identityOf(t *testing.T, s *server) identity {
	t.Helper()
	ctx := within(t, changeLimit)
	node, err := s.client.NodeReady(ctx)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := s.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	system, err := s.client.CoreV1().Namespaces().Get(ctx, "kube-system", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return identity{
		boot: node.Status.NodeInfo.BootID, node: string(node.UID), machine: node.Status.NodeInfo.MachineID,
		cluster: string(system.UID), nodes: fmt.Sprint(len(nodes.Items)), serving: servingCertificate(ctx, t, s),
		web: webIdentity(ctx, t, s.client),
	}
}

// webIdentity: the same Pod objects, not new ones in their place.
func webIdentity(ctx context.Context, t *testing.T, c *kube.Client) string {
	t.Helper()
	uids := map[string]string{}
	for _, p := range webPods(ctx, t, c) {
		uids[p.Name] = string(p.UID)
	}
	return fmt.Sprint(uids) // maps print in the order of their keys
}

// servingCertificate is the serial number of the apiserver's certificate.
func servingCertificate(ctx context.Context, t *testing.T, s *server) string {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.KubeconfigPath())
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // only looked at
	conn, err := dialer.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}
