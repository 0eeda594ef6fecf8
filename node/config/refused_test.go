package config

import (
	"slices"
	"strings"
	"testing"
)

// TestRefusedKeysNameTheirReason gives every refused key a value that asks for what is not there. The words are
// those a person reads, so they are repeated here.
func TestRefusedKeysNameTheirReason(t *testing.T) {
	const (
		images    = "system images are part of the verified root and cannot be replaced one by one"
		datastore = "only the etcd on this node is supported as datastore"
		runtime   = "containerd and kubelet are part of the verified root"
		logging   = "logs have fixed places and bounded size; debug is the one setting"
		balancer  = "the service load balancer comes in a later version"
		plugins   = "the machine runs no programs from outside the verified root"
		cloud     = "cloud provider integrations come in a later version"
	)
	cases := []struct{ key, value, reason, do string }{
		{"bind-address", "192.0.2.7", "the node's own clients and probes reach kube-apiserver on loopback, so it listens on every address", "remove it or set it to 0.0.0.0"},
		{"tls-san-security", "false", "serving certificates carry configured names only, which is the safe setting", "remove it or set it to true"},
		{"servicelb-namespace", "lb", balancer, "remove it or set it to kube-system"},
		{"enable-servicelb", "true", balancer, "remove it or set it to false"},
		{"ingress-controller", "[traefik]", "the image has no ingress controller; a HelmChart of your own can install one", "remove it or set it to none"},
		{"write-kubeconfig-group", "wheel", "the machine has no groups of people", "remove it"},
		{"helm-job-image", "a/b:1", "charts are applied without a job", "remove it"},
		{"disable-agent", "true", "a server of this version always runs a kubelet", "remove it or set it to false"},
		{"secrets-encryption", "false", "secrets are always encrypted at rest", "remove it or set it to true"},
		{"cloud-provider-name", "aws", cloud, "remove it"},
		{"cloud-provider-config", "/etc/cloud.conf", cloud, "remove it"},
		{"profile", "cis", "the CIS profile comes in a later version", "remove it"},
		{"selinux", "true", "the kernel runs without an SELinux policy", "remove it or set it to false"},
		{"with-node-id", "true", "node names with a generated suffix come in a later version", "remove it or set it to false"},
		{"image-credential-provider-bin-dir", "/opt/bin", plugins, "remove it"},
		{"image-credential-provider-config", "/opt/config", plugins, "remove it"},
		{"lb-server-port", "7444", "a single server needs no load balancer for its clients", "remove it or set it to 6444"},
		{"container-runtime-endpoint", "/run/docker.sock", runtime, "remove it"},
		{"default-runtime", "crun", runtime, "remove it or set it to runc"},
		{"nonroot-devices", "true", runtime, "remove it or set it to false"},
		{"snapshotter", "stargz", runtime, "remove it or set it to overlayfs"},
		{"kubelet-path", "/opt/kubelet", runtime, "remove it"},
		{"system-default-registry", "reg.example", "system images are part of the verified root and never pulled", "remove it"},
		{"airgap-extra-registry", "[reg.example]", images, "remove it"},
		{"log", "/tmp/log", logging, "remove it"},
		{"alsologtostderr", "true", logging, "remove it or set it to false"},
		{"v", "4", logging, "remove it or set it to 0"},
		{"vmodule", "a=4", logging, "remove it"},
		{"etcd-snapshot-reconcile-interval", "5m", "snapshots and their objects are compared every ten minutes", "remove it or set it to 10m0s"},
		{"datastore-endpoint", "postgres://u:hush@db", datastore, "remove it"},
		{"datastore-cafile", "/ca", datastore, "remove it"},
		{"datastore-certfile", "/crt", datastore, "remove it"},
		{"datastore-keyfile", "/key", datastore, "remove it"},
		{"kube-apiserver-image", "a:1", images, "remove it"},
		{"kube-controller-manager-image", "a:1", images, "remove it"},
		{"cloud-controller-manager-image", "a:1", images, "remove it"},
		{"kube-proxy-image", "a:1", images, "remove it"},
		{"kube-scheduler-image", "a:1", images, "remove it"},
		{"pause-image", "a:1", images, "remove it"},
		{"runtime-image", "a:1", images, "remove it"},
		{"etcd-image", "a:1", images, "remove it"},
	}
	for _, c := range cases {
		t.Run(c.key, func(t *testing.T) {
			_, err := load(t, map[string]string{"config.yaml": "debug: true\n", "50-own.yaml": "# a comment\n\n" + c.key + ": " + c.value + "\n"})
			if err == nil {
				t.Fatal("no error")
			}
			_, got, _ := strings.Cut(err.Error(), "config.yaml.d/")
			if want := "50-own.yaml: line 3: " + c.key + ": is not supported: " + c.reason + "; " + c.do; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if strings.Contains(err.Error(), "hush") {
				t.Error("the message tells a secret")
			}
		})
	}
	for _, k := range Keys() {
		if k.Status == Refused && !slices.ContainsFunc(cases, func(c struct{ key, value, reason, do string }) bool { return c.key == k.Name }) {
			t.Errorf("%s is refused and not in this table", k.Name)
		}
	}
}

// TestNeutralForms: whoever asks for what happens anyway may write it as YAML lets them.
func TestNeutralForms(t *testing.T) {
	for _, c := range []struct {
		name, text string
		passes     bool
	}{
		{"plain false", "selinux: false", true},
		{"capital", "selinux: False", true},
		{"quoted", `selinux: "false"`, true},
		{"capital true of a switch that is on", "secrets-encryption: TRUE", true},
		{"a number is not a truth value here", "selinux: 0", false},
		{"empty path", "kubelet-path:", true},
		{"empty list", "airgap-extra-registry: []", true},
		{"list with the neutral value", "ingress-controller: [none]", true},
		{"list with another beside it", "ingress-controller: [none, traefik]", false},
		{"a number", "lb-server-port: 6444", true},
		{"verbosity of nothing", "v: 0", true},
		{"verbosity as a truth value", "v: false", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, map[string]string{"config.yaml": c.text})
			if (err == nil) != c.passes {
				t.Errorf("got error %v, want it to pass: %v", err, c.passes)
			}
		})
	}
}

// TestLaterFileTakesARefusalBack: only what the merged settings ask for counts.
func TestLaterFileTakesARefusalBack(t *testing.T) {
	if _, err := load(t, map[string]string{"config.yaml": "selinux: true\n", "a.yaml": "selinux: false\n"}); err != nil {
		t.Errorf("taken back: %v", err)
	}
	_, err := load(t, map[string]string{"config.yaml": "selinux: false\n", "a.yaml": "\nselinux: true\n"})
	if err == nil || !strings.Contains(err.Error(), "a.yaml: line 2: selinux: ") {
		t.Errorf("asked for later: got %v", err)
	}
}

// TestK3sKeys names each key that people copy from k3s.
func TestK3sKeys(t *testing.T) {
	for _, key := range k3sKeys() {
		_, err := load(t, map[string]string{"config.yaml": key + ": x\n"})
		if err == nil || !strings.HasSuffix(err.Error(), "line 1: "+key+": is a key of k3s that RKE2 does not have; remove it") {
			t.Errorf("%s: got %v", key, err)
		}
	}
}
