package config

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the golden files anew")

// load writes files (the main one is config.yaml, the others go to config.yaml.d) and loads them.
func load(t *testing.T, files map[string]string) (Config, error) {
	t.Helper()
	return Load(write(t, files))
}

// write does so, and gives the path of the main one.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	main := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.Mkdir(main+".d", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := main
		if name != "config.yaml" {
			path = filepath.Join(main+".d", name)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return main
}

func TestLoadReadsEveryType(t *testing.T) {
	got, err := load(t, map[string]string{"config.yaml": `
# a comment
token: 12345678          # a number stays text
write-kubeconfig-mode: 0644
debug: "true"
tls-san: [a.example, "10.0.0.1"]
node-label:
- size=big
- keelson.example/role=
node-taint: dedicated=db:NoSchedule
cluster-cidr: 10.1.0.0/16,fd00:1::/56
service-cidr:
  - 10.2.0.0/16
  - fd00:2::/112
node-ip: 192.0.2.1
service-node-port-range: 20000-20100
cni: [none]
disable: rke2-coredns, rke2-metrics-server
kubelet-arg:
- max-pods=50
- config=/etc/x,y
kube-apiserver-arg: enable-admission-plugins+=PodSecurity
kube-cloud-controller-manager-arg: v=4
cloud-controller-manager-extra-env: [A=1, "B=x=y"]
etcd-extra-mount: /a:/b:ro
control-plane-resource-requests: kube-apiserver-cpu=500m,etcd-memory=1Gi
control-plane-probe-configuration: [etcd-startup-failure-threshold=30]
resolv-conf:
`})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Token = "12345678"
	want.WriteKubeconfigMode = 0o644
	want.Debug = true
	want.TLSSAN = []string{"a.example", "10.0.0.1"}
	want.NodeLabels = []string{"size=big", "keelson.example/role="}
	want.NodeTaints = []string{"dedicated=db:NoSchedule"}
	want.ClusterCIDR = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/56")}
	want.ServiceCIDR = []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("fd00:2::/112")}
	want.NodeIP = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	want.ServiceNodePortRange = PortRange{20000, 20100}
	want.CNI = CNINone
	want.Disable = []string{"rke2-coredns", "rke2-metrics-server"}
	want.KubeletArgs = []string{"max-pods=50", "config=/etc/x,y"}
	want.APIServer.Args = []string{"enable-admission-plugins+=PodSecurity"}
	want.CloudController = Component{Args: []string{"v=4"}, ExtraEnv: []string{"A=1", "B=x=y"}}
	want.Etcd.ExtraMount = []string{"/a:/b:ro"}
	want.ControlPlaneResourceRequests = map[string]string{"kube-apiserver-cpu": "500m", "etcd-memory": "1Gi"}
	want.ControlPlaneProbes = map[string]int32{"etcd-startup-failure-threshold": 30}
	got.origin = nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Load\n got %+v\nwant %+v", got, want)
	}
}

func TestLoadMergesFiles(t *testing.T) {
	got, err := load(t, map[string]string{
		"config.yaml": "node-name: first\ntls-san: [a]\nnode-label: [x=1]\n",
		"10-b.yaml":   "node-name: second\ntls-san: [b]\nnode-label+: [y=2]\n",
		"20-c.yml":    "node-label+: z=3\n",
		"30-d.txt":    "this is: [not read",
		"05-a.yaml":   "",
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.NodeName != "second" {
		t.Errorf("node-name: got %q, want the later file's", got.NodeName)
	}
	if want := []string{"b"}; !slices.Equal(got.TLSSAN, want) {
		t.Errorf("tls-san: got %v, want %v: a list replaces", got.TLSSAN, want)
	}
	if want := []string{"x=1", "y=2", "z=3"}; !slices.Equal(got.NodeLabels, want) {
		t.Errorf("node-label: got %v, want %v: + appends", got.NodeLabels, want)
	}
}

func TestLoadOfNothingIsDefault(t *testing.T) {
	got, err := Load(filepath.Join(t.TempDir(), "none.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, Config{origin: nil, DataDir: "/var/lib/rancher/rke2", ServiceNodePortRange: PortRange{30000, 32767}, ClusterDomain: "cluster.local",
		CNI: "flannel", FlannelBackend: "vxlan", EgressSelectorMode: "agent", WriteKubeconfig: "/etc/rancher/rke2/rke2.yaml", WriteKubeconfigMode: 0o600, PrivateRegistry: "/etc/rancher/rke2/registries.yaml", SecretsEncryptionProvider: "aescbc",
		SnapshotName: "etcd-snapshot", SnapshotSchedule: "0 */12 * * *", SnapshotRetention: 5, S3: S3{Region: "us-east-1", Timeout: "5m0s", Retention: 5}}) {
		t.Errorf("got %+v", got)
	}
}

func TestTokenFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	if err := os.WriteFile(path, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := load(t, map[string]string{"config.yaml": "token-file: " + path + "\nagent-token-file: " + path + "\nagent-token: direct\n"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Token.Reveal() != "from-file" || c.AgentToken.Reveal() != "direct" {
		t.Errorf("got token %q, agent token %q", c.Token.Reveal(), c.AgentToken.Reveal())
	}
	_, err = load(t, map[string]string{"config.yaml": "debug: true\ntoken-file: " + dir + "/absent\n"})
	if err == nil || !strings.Contains(err.Error(), "line 2: token-file: ") {
		t.Errorf("absent file: got %v", err)
	}
}

// TestProblems holds what a person reads for each kind of mistake, without the path of the file.
func TestProblems(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown with a neighbour", "debug: true\ntls-sans: [a]", "line 2: tls-sans: is not a known key; did you mean tls-san?"},
		{"unknown without one", "frobnicate: 1", "line 1: frobnicate: is not a known key; remove it"},
		{"k3s key", "flannel-iface: eth0", "line 1: flannel-iface: is a key of k3s that RKE2 does not have; remove it"},
		{"join address", "\nserver: https://x:9345", ""},
		{"snapshots kept", "etcd-snapshot-retention: many", `line 1: etcd-snapshot-retention: is "many"; write a number`},
		{"snapshots kept, below none", "etcd-snapshot-retention: -1", `line 1: etcd-snapshot-retention: is "-1"; write a number`},
		{"time of the object store", "etcd-s3-timeout: 5", `line 1: etcd-s3-timeout: is "5"; write a duration such as 5m or 30s`},
		{"lookup of the object store", "etcd-s3-bucket-lookup-type: host", `line 1: etcd-s3-bucket-lookup-type: is "host"; write auto, dns or path`},
		{"join address without a port", "\nserver: https://x", `line 2: server: is "https://x"; write https://host:9345, with the port`},
		{"join address with a path", "server: https://x:9345/v1", `line 1: server: is "https://x:9345/v1"; write https://host:9345, with the port`},
		{"egress of k3s", "egress-selector-mode: pod", "line 1: egress-selector-mode: pod is not supported: write agent (kube-apiserver reaches kubelets through their tunnels) or disabled"},
		{"egress misspelt", "egress-selector-mode: agnet", `line 1: egress-selector-mode: is "agnet"; write agent or disabled`},
		{"refused list", "airgap-extra-registry: [a, b]", "line 1: airgap-extra-registry: is not supported: system images are part of the verified root and cannot be replaced one by one; remove it"},
		{"refused switch", "selinux: true", "line 1: selinux: is not supported: the kernel runs without an SELinux policy; remove it or set it to false"},
		{"list for a text", "node-name:\n- a\n- b", "line 1: node-name: is a list; give one value"},
		{"mapping for a list", "node-label:\n  a: b", "line 1: node-label: is a mapping; give a value or a list of values"},
		{"mapping inside a list", "node-label:\n- a=b\n- c: d", "line 1: node-label: has an item that is not plain text; quote it"},
		{"text for a switch", "debug: maybe", `line 1: debug: is "maybe"; write true or false`},
		{"nothing for a switch", "debug:", `line 1: debug: is ""; write true or false`},
		{"line of the item", "node-ip:\n- 10.0.0.1\n- 10.0.0.256", `line 3: node-ip: "10.0.0.256" is not an IP address`},
		{"network with host bits", "cluster-cidr: 10.42.0.1/16", `line 1: cluster-cidr: "10.42.0.1/16" is not a network; write its first address and prefix length, such as 10.42.0.0/16`},
		{"mode", "write-kubeconfig-mode: rw", `line 1: write-kubeconfig-mode: is "rw"; write an octal file mode such as 0600`},
		{"mode with setuid", "write-kubeconfig-mode: 4755", `line 1: write-kubeconfig-mode: is "4755"; write an octal file mode such as 0600`},
		{"ports backwards", "service-node-port-range: 9-8", `line 1: service-node-port-range: is "9-8"; write first-last, such as 30000-32767`},
		{"port too high", "service-node-port-range: 9-70000", `line 1: service-node-port-range: is "9-70000"; write first-last, such as 30000-32767`},
		{"cni of RKE2", "cni: canal", "line 1: cni: canal is not supported: only flannel is in the image; write flannel, or none and bring your own"},
		{"cni misspelt", "cni: flanel", `line 1: cni: is "flanel"; write flannel or none`},
		{"two plug-ins", "cni: [none, flannel]", "line 1: cni: has 2 values; give one"},
		{"label", "node-label: [a]", `line 1: node-label: "a" is not a label; write key=value`},
		{"taint", "node-taint: [a=b:Never]", `line 1: node-taint: "a=b:Never" is not a taint; write key=value:effect with NoSchedule, PreferNoSchedule or NoExecute`},
		{"argument with dashes", "kubelet-arg: [--v=2]", `line 1: kubelet-arg: "--v=2" begins with a dash; write name=value without it`},
		{"variable", "etcd-extra-env: [A]", `line 1: etcd-extra-env: "A" is not a variable; write NAME=value`},
		{"mount", "etcd-extra-mount: [a:b]", `line 1: etcd-extra-mount: "a:b" is not a mount; write /source:/destination, then :ro or :rw, then :Directory or another host path type`},
		{"resource", "control-plane-resource-limits: [apiserver-cpu=1]", `line 1: control-plane-resource-limits: "apiserver-cpu=1" is not a resource setting; write one such as kube-apiserver-cpu=500m or etcd-memory=1Gi`},
		{"probe", "control-plane-probe-configuration: etcd-startup-failure-threshold=x", `line 1: control-plane-probe-configuration: "etcd-startup-failure-threshold=x" does not end in a number; write name=number`},
		{"relative path", "data-dir: var/lib", `line 1: data-dir: is "var/lib"; write a clean absolute path`},
		{"twice", "debug: true\ndebug: false", "line 2: debug: is here for the second time in this file; keep one"},
		{"merge key", "<<: {debug: true}", "line 1: <<: YAML merge keys are not supported; write the keys out"},
		{"list at the top", "- a", "line 1: is a list; write key: value lines"},
		{"two documents", "debug: true\n---\ndebug: false", "line 2: is a second YAML document; keep one document in a file"},
		{"broken YAML", "debug: true\n  x: [", "line 2: is not valid YAML: mapping values are not allowed in this context"},
		{"a token of two lines", "token: \"a\\nb\"", "line 1: token: holds a line break or control character; write it on one line"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, map[string]string{"config.yaml": c.text})
			if err == nil {
				if c.want != "" {
					t.Fatal("no error")
				}
				return
			}
			_, got, _ := strings.Cut(err.Error(), "config.yaml: ")
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestAllProblemsAreTold(t *testing.T) {
	_, err := load(t, map[string]string{"config.yaml": "debug: x\nfoo: 1\nserver: y\n", "a.yaml": "bar: 2\n"})
	if n := len(strings.Split(fmt.Sprint(err), "\n")); n != 4 {
		t.Errorf("got %d problems, want 4: %v", n, err)
	}
}

func TestNeutralValuesOfRefusedKeysPass(t *testing.T) {
	for _, k := range Keys() {
		for _, v := range k.Neutral {
			if _, err := load(t, map[string]string{"config.yaml": fmt.Sprintf("%s: %q\n", k.Name, v)}); err != nil {
				t.Errorf("%s: %q: %v", k.Name, v, err)
			}
		}
		if k.Status == Refused {
			if _, err := load(t, map[string]string{"config.yaml": k.Name + ": something-else\n"}); err == nil {
				t.Errorf("%s: something-else: passed", k.Name)
			}
		}
	}
}

func TestCheckTakesNodes(t *testing.T) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte("hostname: x\nrke2:\n  token: a\n  node-ips: 1.2.3.4\n"), &doc); err != nil {
		t.Fatal(err)
	}
	got := Check(doc.Content[0].Content[3], "user-data")
	want := []Problem{{File: "user-data", Line: 4, Key: "node-ips", Message: "is not a known key; did you mean node-ip?"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := Check(&yaml.Node{}, "user-data"); len(got) != 0 {
		t.Errorf("empty node: got %v", got)
	}
}

func TestKeysAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Keys() {
		if seen[k.Name] {
			t.Errorf("%s is in the table twice", k.Name)
		}
		seen[k.Name] = true
		if k.Status == Honoured && (k.bind == nil || k.Doc == "" || k.Reason != "") || k.Status == Refused && (k.bind != nil || k.Reason == "") {
			t.Errorf("%s: row does not fit its status", k.Name)
		}
	}
	for _, name := range k3sKeys() {
		if seen[name] {
			t.Errorf("%s is both a key and one that RKE2 does not have", name)
		}
	}
	// Each field belongs to one key: two rows that bind one field would overwrite each other in silence.
	c := Config{}
	fields := map[any]string{}
	for _, k := range Keys() {
		if k.bind != nil {
			if other := fields[k.bind(&c)]; other != "" {
				t.Errorf("%s and %s set the same field", k.Name, other)
			}
			fields[k.bind(&c)] = k.Name
		}
	}
}

func TestTable(t *testing.T) {
	got := Table()
	if *update {
		if err := os.WriteFile("KEYS.md", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("KEYS.md")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Error("KEYS.md is not what the table prints; run with -update")
	}
}

func TestSecretNeverPrints(t *testing.T) {
	c := Config{Token: "hush", AgentToken: "hush"}
	out := fmt.Sprint(c, &c) + fmt.Sprintf("%v %+v %#v %s %q", c, c, c, c.Token, c.Token)
	js, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	ym, err := yaml.Marshal(map[string]any{"t": c.Token})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "token", c.Token, "config", c)
	if all := out + string(js) + string(ym) + log.String(); strings.Contains(all, "hush") {
		t.Errorf("a secret was printed: %s", all)
	}
}
