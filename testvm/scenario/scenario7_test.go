package scenario

import (
	"strings"
	"testing"

	"keelson/testvm/kube"
)

// etcd, apiserver, kubelet, containerd and node killed one after another: each
// comes back, the node returns to Ready, no zombie is left.
//
// The killer is a pod. It outlives the runtime and kubelet, for containers do,
// and its end can only be reported by a kubelet, a runtime and an apiserver
// that work again.
func TestScenario7Killed(t *testing.T) {
	needVM(t)
	s := sharedServer(t)
	service := ensureWeb(t, s.client)
	systemReady(t, s.client)
	for _, victim := range []string{"etcd", "kube-apiserver", "kubelet", "containerd", "node"} {
		t.Run(victim, func(t *testing.T) {
			ctx := within(t, readyLimit)
			out, err := s.client.RunPod(ctx, kube.Pod{
				Namespace: "default", Name: "killer-of-" + victim, Image: workloadImage, Args: []string{"kill", victim}, Host: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out, victim+" is back as ") {
				t.Errorf("got %q, want %s to be back", out, victim)
			}
			t.Log(strings.TrimSpace(out))
			systemReady(t, s.client)
		})
		if t.Failed() {
			return
		}
	}
	out, err := s.client.RunPod(within(t, changeLimit), kube.Pod{
		Namespace: "default", Name: "zombies", Image: workloadImage, Args: []string{"zombies"}, Host: true,
	})
	if err != nil || !strings.HasSuffix(out, "0 zombies\n") || strings.Count(out, "\n") != 1 {
		t.Errorf("zombies: got %q, %v, want none", out, err)
	}
	ensureWeb(t, s.client)
	asks(t, s.client, "http://"+service.Spec.ClusterIP)
}
