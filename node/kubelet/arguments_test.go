package kubelet

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"
)

// TestArguments is what of the settings stands on the command line, whole.
func TestArguments(t *testing.T) {
	ours := []string{
		"--cloud-provider=external", "--config-dir=/var/lib/rancher/rke2/agent/etc/kubelet.conf.d", "--hostname-override=cp-1",
		"--kubeconfig=/var/lib/rancher/rke2/agent/kubelet.kubeconfig", "--node-ip=10.0.0.2", "--read-only-port=0",
	}
	without := func(name string) []string {
		return slices.DeleteFunc(slices.Clone(ours), func(a string) bool { return strings.HasPrefix(a, "--"+name+"=") })
	}
	for _, c := range []struct {
		name   string
		change func(*Params)
		want   []string
	}{
		{"ours", func(*Params) {}, ours},
		{"no cloud controller", func(p *Params) { p.CloudProvider = false }, without("cloud-provider")},
		{"no address", func(p *Params) { p.NodeIPs = nil }, without("node-ip")},
		{"two addresses", func(p *Params) { p.NodeIPs = []string{"10.0.0.2", "fd00::2"} }, append(without("node-ip"), "--node-ip=10.0.0.2,fd00::2")},
		{"labels in order", func(p *Params) { p.Labels = map[string]string{"b": "2", "a": "", "c.d/e": "3"} }, append(slices.Clone(ours), "--node-labels=a=,b=2,c.d/e=3")},
		{"the user's flag", func(p *Params) { p.ExtraArguments = []string{"max-pods=99"} }, append(slices.Clone(ours), "--max-pods=99")},
		{"the user's flag in place of ours", func(p *Params) { p.ExtraArguments = []string{"hostname-override=x"} }, append(without("hostname-override"), "--hostname-override=x")},
		{"a switch", func(p *Params) { p.ExtraArguments = []string{"enable-server"} }, append(slices.Clone(ours), "--enable-server=true")},
		{"files are no flags", func(p *Params) { p.ExtraArguments = []string{"config=/etc/kubelet.yaml", "config-dir=/etc/kubelet.d"} }, ours},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := params()
			c.change(&p)
			r, err := Render(p)
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(c.want)
			if !slices.Equal(r.Args, c.want) {
				t.Errorf("got  %q\nwant %q", r.Args, c.want)
			}
		})
	}
}

// TestSettingsReachTheirFields, with the API's own type as the reader.
func TestSettingsReachTheirFields(t *testing.T) {
	p := params()
	p.ClusterDNS = []string{"10.43.0.10", "fd00:43::a"}
	p.ProtectKernel = true
	p.Taints = []string{"a:NoExecute", "b=c:PreferNoSchedule"}
	r, err := Render(p)
	if err != nil {
		t.Fatal(err)
	}
	var c kubeletconfig.KubeletConfiguration
	if err := yaml.UnmarshalStrict(r.Files[0].Content, &c); err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct{ name, got, want string }{
		{"runtime", c.ContainerRuntimeEndpoint, "unix:///run/k3s/containerd/containerd.sock"},
		{"static pods", c.StaticPodPath, "/var/lib/rancher/rke2/agent/pod-manifests"},
		{"client CA", c.Authentication.X509.ClientCAFile, "/var/lib/rancher/rke2/agent/client-ca.crt"},
		{"certificate", c.TLSCertFile, "/var/lib/rancher/rke2/agent/serving-kubelet.crt"},
		{"key", c.TLSPrivateKeyFile, "/var/lib/rancher/rke2/agent/serving-kubelet.key"},
		{"domain", c.ClusterDomain, "cluster.local"},
		{"DNS", strings.Join(c.ClusterDNS, " "), "10.43.0.10 fd00:43::a"},
		{"health is told here alone", c.HealthzBindAddress, "127.0.0.1"},
		{"disk", c.EvictionHard["nodefs.available"], "5%"},
		{"memory", c.EvictionHard["memory.available"], "100Mi"},
	} {
		if f.got != f.want {
			t.Errorf("%s: got %q, want %q", f.name, f.got, f.want)
		}
	}
	if !c.ProtectKernelDefaults || c.NodeStatusUpdateFrequency.Duration != 10*time.Second || c.ResolverConfig == nil || *c.ResolverConfig != "/etc/resolv.conf" {
		t.Errorf("got %v, %v, %v", c.ProtectKernelDefaults, c.NodeStatusUpdateFrequency, c.ResolverConfig)
	}
	if len(c.RegisterWithTaints) != 2 || c.RegisterWithTaints[0].Value != "" || c.RegisterWithTaints[1].Value != "c" || c.RegisterWithTaints[1].Effect != "PreferNoSchedule" {
		t.Errorf("taints: got %v", c.RegisterWithTaints)
	}
}

// TestUserFiles is which of the user's files become drop-ins, and which wins.
func TestUserFiles(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want map[string]string // behind our own
	}{
		{"none", nil, map[string]string{}},
		{"a file", []string{"config=/etc/kubelet.yaml"}, map[string]string{"10-cli-config.conf": "maxPods: 250\n"}},
		{"the later of two files", []string{"config=/etc/kubelet.yaml", "config=/etc/other.yaml"}, map[string]string{"10-cli-config.conf": "maxPods: 99\n"}},
		{"the later of two files, turned", []string{"config=/etc/other.yaml", "--config=/etc/kubelet.yaml"}, map[string]string{"10-cli-config.conf": "maxPods: 250\n"}},
		{"a folder", []string{"config-dir=/etc/kubelet.d"}, map[string]string{"20-cli-config-dir/a.conf": "registryPullQPS: 0\n", "20-cli-config-dir/b.conf": "maxPods: 251\n"}},
		{"an empty folder", []string{"config-dir=/etc/none"}, map[string]string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := params()
			p.Files.(fstest.MapFS)["etc/other.yaml"] = &fstest.MapFile{Data: []byte("maxPods: 99\n")}
			p.ExtraArguments = c.args
			r, err := Render(p)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, f := range r.Files[1:] {
				name := strings.TrimPrefix(f.Path, r.Dir+"/")
				if _, twice := got[name]; twice {
					t.Errorf("%s is written twice", name)
				}
				got[name] = string(f.Content)
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
