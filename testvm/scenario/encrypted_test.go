package scenario

import (
	"bytes"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/testvm/kube"
)

// listener looks for texts in the frames of a LAN.
type listener struct {
	mu     sync.Mutex
	texts  []string
	found  map[string]int // frames that hold the text
	sealed int            // frames to the ports of WireGuard
}

func (l *listener) hear(frame []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, text := range l.texts {
		if bytes.Contains(frame, []byte(text)) {
			l.found[text]++
		}
	}
	if toWireGuard(frame) {
		l.sealed++
	}
}

// toWireGuard tells a data message: UDP by IPv4 or IPv6 to flannel's ports, of type 4 (WireGuard's white paper, 5.4.6).
func toWireGuard(frame []byte) bool {
	const ethernet, udp = 14, 17
	if len(frame) < ethernet+20 {
		return false
	}
	packet, start := frame[ethernet:], 0
	switch {
	case packet[0]>>4 == 4 && packet[9] == udp:
		start = int(packet[0]&15) * 4
	case packet[0]>>4 == 6 && packet[6] == udp:
		start = 40
	default:
		return false
	}
	if len(packet) < start+9 {
		return false
	}
	port := int(packet[start+2])<<8 | int(packet[start+3])
	return (port == 51820 || port == 51821) && packet[start+8] == 4
}

func (l *listener) counts() (found map[string]int, sealed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	found = map[string]int{}
	for text, n := range l.found {
		found[text] = n
	}
	return found, l.sealed
}

// With wireguard-native nothing of what pods of two machines say to each other can be read on the LAN between them, in
// either family. What goes to a node's own address can, so the test hears what there is to hear.
func TestScenarioEncryptedPods(t *testing.T) {
	needVM(t)
	ms := newMachinesWith(t, 0, map[string]any{
		"cluster-cidr": "10.42.0.0/16,fd00:42::/56", "service-cidr": "10.43.0.0/16,fd00:43::/112", "flannel-backend": "wireguard-native",
	}, "server", "agent")
	start(t, ms.all[0])
	client := becomesReady(t, ms.all[0])
	start(t, ms.all[1])
	passes(t, ms.all[1], "cluster joined", "node Ready")
	ctx := within(t, 10*time.Minute)
	if err := client.NodesReady(ctx, "keelson-1", "keelson-2"); err != nil {
		t.Fatal(err)
	}
	const inClear4, inClear6, control = "/keelson-said-by-ipv4", "/keelson-said-by-ipv6", "/keelson-said-to-a-node"
	heard := &listener{texts: []string{inClear4, inClear6, control}, found: map[string]int{}}
	hear := heard.hear
	ms.seen.Store(&hear)

	far := kube.Pod{Namespace: "default", Name: "far", Image: workloadImage, Node: "keelson-1", Args: []string{"serve", ":8080"}}
	if err := client.PodRunning(ctx, far); err != nil {
		t.Fatal(err)
	}
	pod, err := client.CoreV1().Pods("default").Get(ctx, "far", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(pod.Status.PodIPs) != 2 {
		t.Fatalf("the pod has %v, want an address of each family", pod.Status.PodIPs)
	}
	service, err := client.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "far"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Selector: map[string]string{"app": "far"}, Ports: []corev1.ServicePort{{Port: 8080}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	url := func(ip, port, path string) string { return "http://" + net.JoinHostPort(ip, port) + path }
	answer, err := client.RunPod(ctx, kube.Pod{Namespace: "default", Name: "near", Image: workloadImage, Node: "keelson-2", Args: []string{
		"get", url(pod.Status.PodIPs[0].IP, "8080", inClear4), url(pod.Status.PodIPs[1].IP, "8080", inClear6),
		url(lanAddress(1), strconv.Itoa(int(service.Spec.Ports[0].NodePort)), control),
	}})
	if err != nil || strings.Count(answer, "far\n") != 3 {
		t.Fatalf("the pod on the other machine: got %q, %v", answer, err)
	}
	found, sealed := heard.counts()
	if found[inClear4] != 0 || found[inClear6] != 0 {
		t.Errorf("what pods say to each other was heard in clear: %v", found)
	}
	if found[control] == 0 {
		t.Error("what a pod said to a node was not heard: the test is deaf")
	}
	if sealed < 10 {
		t.Errorf("%d sealed messages went by, want some for both connections", sealed)
	}
	t.Logf("heard in clear: %v; %d sealed messages", found, sealed)
}

// TestToWireGuard needs no machine.
func TestToWireGuard(t *testing.T) {
	four := func(protocol, high, low, kind byte) []byte {
		f := make([]byte, 14+60)
		f[14], f[14+9], f[14+22], f[14+23], f[14+28] = 0x45, protocol, high, low, kind
		return f
	}
	six := func(protocol, high, low, kind byte) []byte {
		f := make([]byte, 14+60)
		f[14], f[14+6], f[14+42], f[14+43], f[14+48] = 0x60, protocol, high, low, kind
		return f
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  bool
	}{
		{"IPv4", four(17, 0xca, 0x6c, 4), true}, {"IPv6", six(17, 0xca, 0x6d, 4), true},
		{"handshake", four(17, 0xca, 0x6c, 1), false}, {"TCP", four(6, 0xca, 0x6c, 4), false}, {"another port", six(17, 0x21, 0x18, 4), false},
		{"cut off", four(17, 0xca, 0x6c, 4)[:30], false}, {"ARP", make([]byte, 80), false},
	} {
		if got := toWireGuard(c.frame); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
