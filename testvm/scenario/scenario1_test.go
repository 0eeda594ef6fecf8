package scenario

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"keelson/testvm/kube"
)

// First boot, UEFI: Node Ready, the system runs, the versions are right, a
// workload comes through the registry's mirror and answers, logs and exec work.
func TestScenario1FirstBootUEFI(t *testing.T) {
	needVM(t)
	s := sharedServer(t)
	c := s.client
	pods := systemReady(t, c)
	for _, p := range pods {
		for _, container := range p.Spec.Containers {
			if !strings.HasPrefix(container.Image, "registry.keelson.internal/") {
				t.Errorf("pod %s: image %s is not one of the system's own", p.Name, container.Image)
			}
		}
	}
	if _, err := s.Milestone(within(t, changeLimit), "system pods Ready"); err != nil {
		t.Error(err)
	}
	checkVersions(t, c)

	service := ensureWeb(t, c)
	if !the.registry.Pulled(workloadRepository) {
		t.Errorf("the image did not come from the mirror, which was asked for %v", the.registry.Requests())
	}
	asks(t, c, "http://"+service.Spec.ClusterIP)
	asks(t, c, "http://web")
	asks(t, c, "http://web.default.svc.cluster.local")

	ctx := within(t, changeLimit)
	for _, p := range webPods(ctx, t, c) {
		logs, err := c.Logs(ctx, p.Namespace, p.Name)
		if err != nil || !strings.Contains(logs, "serving as "+p.Name) {
			t.Errorf("logs of %s: got %q, %v, want its first words", p.Name, logs, err)
		}
		for _, transport := range []kube.Transport{kube.WebSocket, kube.SPDY} {
			out, err := c.Exec(ctx, transport, p.Namespace, p.Name, "/workload", "echo", "from", p.Name)
			if want := "from " + p.Name + "\n"; err != nil || out != want {
				t.Errorf("exec in %s by %s: got %q, %v, want %q", p.Name, transport, out, err, want)
			}
		}
	}
}

// checkVersions compares what `kubectl get nodes -o wide` shows with go.mod.
func checkVersions(t *testing.T, c *kube.Client) {
	t.Helper()
	node, err := c.NodeReady(within(t, changeLimit))
	if err != nil {
		t.Fatal(err)
	}
	var wide strings.Builder
	if err := kube.PrintNode(&wide, node, node.CreationTimestamp.Time); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", wide.String())
	server, err := c.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	info := node.Status.NodeInfo
	kubernetes, containerd := required(t, "k8s.io/kubernetes"), strings.TrimPrefix(required(t, "github.com/containerd/containerd/v2"), "v")
	for _, v := range []struct{ what, got, want string }{
		{"kubelet", info.KubeletVersion, `^` + regexp.QuoteMeta(kubernetes) + `\+keelson\d+$`},
		{"kube-apiserver", server.GitVersion, `^` + regexp.QuoteMeta(info.KubeletVersion) + `$`},
		{"container runtime", info.ContainerRuntimeVersion, `^containerd://` + regexp.QuoteMeta(containerd) + `$`},
		{"operating system", info.OSImage, `^Keelson `},
		{"kernel", info.KernelVersion, `^6\.12\.\d+\+.*-` + *flagArch + `$`},
		{"roles", kube.Roles(node), `^control-plane,etcd$`},
		{"architecture", info.Architecture, `^` + *flagArch + `$`},
	} {
		if !regexp.MustCompile(v.want).MatchString(v.got) {
			t.Errorf("%s: got %q, want one that matches %s", v.what, v.got, v.want)
		}
	}
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP && a.Address == "10.0.2.15" {
			return
		}
	}
	t.Errorf("addresses: got %v, want 10.0.2.15 as the internal one", node.Status.Addresses)
}

// required is a module's version in go.mod.
func required(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", module).Output()
	if err != nil {
		t.Fatalf("version of %s: %v", module, err)
	}
	return strings.TrimSpace(string(out))
}
