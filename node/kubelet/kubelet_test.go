package kubelet

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write golden files anew")

func params() Params {
	return Params{
		DataDir:       "/var/lib/rancher/rke2",
		NodeName:      "cp-1",
		NodeIPs:       []string{"10.0.0.2"},
		ClusterDNS:    []string{"10.43.0.10"},
		ClusterDomain: "cluster.local",
		Kubeconfig:    "/var/lib/rancher/rke2/agent/kubelet.kubeconfig",
		ClientCA:      "/var/lib/rancher/rke2/agent/client-ca.crt",
		ServingCert:   "/var/lib/rancher/rke2/agent/serving-kubelet.crt",
		ServingKey:    "/var/lib/rancher/rke2/agent/serving-kubelet.key",
		ResolvConf:    "/etc/resolv.conf",
		RuntimeSocket: "/run/k3s/containerd/containerd.sock",
		PodManifests:  "/var/lib/rancher/rke2/agent/pod-manifests",
		CloudProvider: true,
		Files: fstest.MapFS{
			"etc/kubelet.yaml":     {Data: []byte("maxPods: 250\n")},
			"etc/kubelet.d/b.conf": {Data: []byte("maxPods: 251\n")},
			"etc/kubelet.d/a.conf": {Data: []byte("registryPullQPS: 0\n")},
			"etc/kubelet.d/README": {Data: []byte("no settings")},
			"etc/broken.yaml":      {Data: []byte("a: [\n")},
		},
	}
}

func TestRender(t *testing.T) {
	overridden := params()
	overridden.Labels = map[string]string{"zone": "b", "tier": "a"}
	overridden.Taints = []string{"dedicated=db:NoExecute", "CriticalAddonsOnly:NoSchedule"}
	overridden.ProtectKernel = true
	overridden.NodeIPs = []string{"10.0.0.2", "fd00::2"}
	overridden.CloudProvider = false
	overridden.ExtraArguments = []string{"max-pods=99", "--config=/etc/kubelet.yaml", "config-dir=/etc/kubelet.d/", "feature-gates=A=true"}
	ipv6 := params()
	ipv6.NodeIPs, ipv6.ListenAddress, ipv6.ClusterDNS = []string{"fd00::2"}, "::", []string{"fd00:43::a"}
	dual := params()
	dual.NodeIPs, dual.ListenAddress, dual.ClusterDNS = []string{"10.0.0.2", "fd00::2"}, "::", []string{"10.43.0.10", "fd00:43::a"}
	for name, p := range map[string]Params{"default": params(), "overridden": overridden, "ipv6": ipv6, "dual-stack": dual} {
		t.Run(name, func(t *testing.T) {
			r, err := Render(p)
			if err != nil {
				t.Fatal(err)
			}
			var all bytes.Buffer
			for _, f := range r.Files {
				all.WriteString("# " + f.Path + "\n")
				all.Write(f.Content)
			}
			all.WriteString("# arguments\n" + strings.Join(r.Args, "\n") + "\n")
			golden(t, filepath.Join("testdata", name+".golden"), all.Bytes())
			for _, f := range r.Files {
				if !strings.HasPrefix(f.Path, r.Dir+"/") || !strings.HasSuffix(f.Path, ".conf") {
					t.Errorf("the kubelet does not read %s", f.Path)
				}
			}
		})
	}
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (run with -update after a wanted change); got:\n%s", file, got)
	}
}

// The API's own type must know every field, with the value that we meant.
func TestSettingsAreTheKubelets(t *testing.T) {
	p := params()
	p.Taints = []string{"a=b:NoSchedule"}
	r, err := Render(p)
	if err != nil {
		t.Fatal(err)
	}
	var c kubeletconfig.KubeletConfiguration
	if err := yaml.UnmarshalStrict(r.Files[0].Content, &c); err != nil {
		t.Fatal(err)
	}
	if c.Authentication.Anonymous.Enabled == nil || *c.Authentication.Anonymous.Enabled {
		t.Error("anonymous requests are not switched off")
	}
	if c.Authorization.Mode != kubeletconfig.KubeletAuthorizationModeWebhook {
		t.Errorf("authorization mode %q", c.Authorization.Mode)
	}
	if c.CgroupDriver != "cgroupfs" || c.EvictionHard["memory.available"] == "" || c.FileCheckFrequency.Duration == 0 {
		t.Errorf("got %+v", c)
	}
	if c.FailSwapOn == nil || *c.FailSwapOn || c.SerializeImagePulls == nil || *c.SerializeImagePulls {
		t.Error("failSwapOn and serializeImagePulls must be false, not absent")
	}
	if len(c.RegisterWithTaints) != 1 || c.RegisterWithTaints[0].Value != "b" {
		t.Errorf("taints %+v", c.RegisterWithTaints)
	}
}

func TestRenderRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Params)
		want   string
	}{
		"taint without effect": {func(p *Params) { p.Taints = []string{"a=b"} }, `"a=b"`},
		"taint with an effect": {func(p *Params) { p.Taints = []string{"a=b:Sometimes"} }, "NoSchedule"},
		"taint without key":    {func(p *Params) { p.Taints = []string{":NoSchedule"} }, "key"},
		"argument":             {func(p *Params) { p.ExtraArguments = []string{"=1"} }, "name=value"},
		"absent file":          {func(p *Params) { p.ExtraArguments = []string{"config=/etc/none.yaml"} }, "none.yaml"},
		"broken file":          {func(p *Params) { p.ExtraArguments = []string{"config=/etc/broken.yaml"} }, "broken.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			p := params()
			c.change(&p)
			if _, err := Render(p); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestLabels(t *testing.T) {
	own, others, err := Labels([]string{"zone=b", "node-role.kubernetes.io/db=true", "kubernetes.io/hostname=x", "node.kubernetes.io/pool=p", "x.k8s.io/y=", "example.com/a=b"})
	if err != nil {
		t.Fatal(err)
	}
	wantOwn := map[string]string{"zone": "b", "kubernetes.io/hostname": "x", "node.kubernetes.io/pool": "p", "example.com/a": "b"}
	wantOthers := map[string]string{"node-role.kubernetes.io/db": "true", "x.k8s.io/y": ""}
	if !maps.Equal(own, wantOwn) || !maps.Equal(others, wantOthers) {
		t.Errorf("got %v and %v, want %v and %v", own, others, wantOwn, wantOthers)
	}
	for _, bad := range []string{"novalue", "a b=c", "a=b c", "=x"} {
		if _, _, err := Labels([]string{bad}); err == nil {
			t.Errorf("%q: want an error", bad)
		}
	}
}

func TestUsableResolvConf(t *testing.T) {
	for _, c := range []struct {
		name, content string
		want          bool
	}{
		{"global", "search x\nnameserver 10.0.2.3\n", true},
		{"two", "nameserver 10.0.2.3\nnameserver 2001:db8::1\n", true},
		{"metadata server", "nameserver 169.254.169.254", true},
		{"empty", "", false},
		{"none", "search example.com\n", false},
		{"loopback", "nameserver 127.0.0.53\n", false},
		{"one of two is local", "nameserver 10.0.2.3\nnameserver ::1\n", false},
		{"link-local", "nameserver fe80::1%eth0\n", false},
		{"no address", "nameserver dns\n", false},
		{"comment", "# nameserver 10.0.2.3\n", false},
		{"ours", string(NoResolvConf()), true},
	} {
		if got := UsableResolvConf([]byte(c.content)); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func FuzzUsableResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 10.0.2.3\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if UsableResolvConf(content) && !bytes.Contains(content, []byte("nameserver")) {
			t.Error("usable without a server")
		}
	})
}

func FuzzLabelsAndTaints(f *testing.F) {
	f.Add("a=b", "a=b:NoSchedule")
	f.Fuzz(func(t *testing.T, label, text string) {
		if own, others, err := Labels([]string{label}); err == nil && len(own)+len(others) != 1 {
			t.Errorf("%q gives %v and %v", label, own, others)
		}
		if taints, err := parseTaints([]string{text}); err == nil && (len(taints) != 1 || taints[0].Key == "") {
			t.Errorf("%q gives %v", text, taints)
		}
	})
}

func TestUserFilesComeLast(t *testing.T) {
	p := params()
	p.ExtraArguments = []string{"config-dir=/etc/kubelet.d", "config=/etc/kubelet.yaml"}
	r, err := Render(p)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range r.Files {
		names = append(names, strings.TrimPrefix(f.Path, r.Dir+"/"))
	}
	want := []string{"00-rke2-defaults.conf", "10-cli-config.conf", "20-cli-config-dir/a.conf", "20-cli-config-dir/b.conf"}
	if !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}
