package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/testvm/cidata"
	"keelson/testvm/kube"
)

const metricsPath = "/apis/metrics.k8s.io/v1beta1"

// usage is what metrics.k8s.io tells of a node, or of a pod's containers.
type usage struct {
	Metadata   metav1.ObjectMeta
	Usage      map[string]resource.Quantity
	Containers []struct {
		Name  string
		Usage map[string]resource.Quantity
	}
}

// measured asks until what is asked for has an answer with every one of the names in it, and returns those.
func measured(ctx context.Context, client *kube.Client, path string, names ...string) (map[string]usage, error) {
	tick := time.NewTicker(time.Second) // of measurements there is no watch
	defer tick.Stop()
	for {
		var list struct{ Items []usage }
		raw, err := client.CoreV1().RESTClient().Get().AbsPath(metricsPath + path).DoRaw(ctx)
		if err == nil {
			err = json.Unmarshal(raw, &list)
		}
		got := map[string]usage{}
		for _, u := range list.Items {
			for _, name := range names {
				if u.Metadata.Name == name || strings.HasSuffix(name, "-") && strings.HasPrefix(u.Metadata.Name, name) {
					got[name] = u
				}
			}
		}
		if err == nil && len(got) == len(names) {
			return got, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: want %q, last: %s, %w", path, names, bytes.TrimSpace(raw), errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

// What two nodes and their pods use is told by metrics-server through the aggregated API, each kubelet's certificate held
// against the cluster's CA; kubectl top shows it; and an operator who disables it by either name is rid of it.
func TestMetrics(t *testing.T) {
	c := newCluster(t)
	client := c.pair(nil)
	ctx := within(t, readyLimit)
	if _, err := client.PodsReady(ctx, "kube-system", "metrics-server-"); err != nil {
		t.Fatal(err)
	}
	nodes, err := measured(ctx, client, "/nodes", c.names()...)
	if err != nil {
		t.Fatal(err)
	}
	for name, u := range nodes {
		if cpu, memory := u.Usage["cpu"], u.Usage["memory"]; cpu.IsZero() || memory.IsZero() {
			t.Errorf("node %s: %+v", name, u.Usage)
		}
	}
	pods, err := measured(ctx, client, "/namespaces/kube-system/pods", "coredns-", "kube-flannel-ds-", "etcd-server-1", "kube-apiserver-server-1", "metrics-server-")
	if err != nil {
		t.Fatal(err)
	}
	for name, u := range pods {
		for _, container := range u.Containers {
			if memory := container.Usage["memory"]; memory.IsZero() {
				t.Errorf("pod %s: container %s: %+v", name, container.Name, container.Usage)
			}
		}
		if len(u.Containers) == 0 {
			t.Errorf("pod %s: no container", name)
		}
	}
	for _, what := range []string{"nodes", "pods"} {
		output, err := client.RunOnNode(ctx, workloadImage, "server-1", "/usr/bin/kubectl", "--kubeconfig=/etc/rancher/rke2/rke2.yaml", "top", what, "-n", "kube-system")
		for _, want := range map[string][]string{"nodes": {"CPU(cores)", "MEMORY(%)", "server-1", "agent-1"}, "pods": {"MEMORY(bytes)", "coredns-", "etcd-server-1"}}[what] {
			if err != nil || !strings.Contains(output, want) {
				t.Errorf("kubectl top %s: %v: no %q in\n%s", what, err, want, output)
			}
		}
		t.Logf("kubectl top %s:\n%s", what, output)
	}

	s := c.all["server-1"]
	if err := s.Shutdown(within(t, stopLimit)); err != nil {
		t.Fatal(err)
	}
	c.reseed(s, func(cc *cidata.CloudConfig) { cc.RKE2["disable"] = []string{"metrics-server"} })
	c.start(s)
	client = c.client(s)
	c.whole(client)
	c.until("metrics-server is gone", func() error {
		_, err := client.AppsV1().Deployments("kube-system").Get(within(t, changeLimit), "metrics-server", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("its Deployment: %w", errors.Join(err, errors.New("is there")))
		}
		raw, err := client.CoreV1().RESTClient().Get().AbsPath("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io").DoRaw(within(t, changeLimit))
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("its APIService: %s: %w", raw, errors.Join(err, errors.New("is there")))
		}
		return nil
	})
}
