package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the golden file anew")

var epoch = time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)

func params(t *testing.T) Params {
	t.Helper()
	dir := t.TempDir()
	return Params{
		ServerDir: filepath.Join(dir, "server"), AgentDir: filepath.Join(dir, "agent"),
		NodeName: "cp-1.example", Addresses: []netip.Addr{netip.MustParseAddr("10.0.2.15"), netip.MustParseAddr("fd00::15")},
		SANs: []string{"api.example", "203.0.113.7"}, ServiceIPs: []netip.Addr{netip.MustParseAddr("10.43.0.1")}, ClusterDomain: "cluster.local",
		Kubeconfig: filepath.Join(dir, "etc", "rke2.yaml"), Now: epoch,
	}
}

// ensure runs EnsureCertificates: the service account key is slow to make and has its own test.
func ensure(t *testing.T, p Params) Result {
	t.Helper()
	r, err := EnsureCertificates(p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// tree reads every file below the parent of the server folder, by path.
func tree(t *testing.T, p Params) map[string]string {
	t.Helper()
	all := map[string]string{}
	root := filepath.Dir(p.ServerDir)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(root, path)
		all[rel] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func readCert(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := parseCerts(data)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return certs[0]
}

// TestWholeTree names every file, with its mode.
func TestWholeTree(t *testing.T) {
	p := params(t)
	if _, err := Ensure(p); err != nil {
		t.Fatal(err)
	}
	var got []string
	root := filepath.Dir(p.ServerDir)
	for path := range tree(t, p) {
		info, err := os.Stat(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %04o", path, info.Mode()))
	}
	slices.Sort(got)
	text := strings.Join(got, "\n") + "\n"
	if *update {
		write(t, "testdata/tree.txt", text)
	}
	want, err := os.ReadFile("testdata/tree.txt")
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("tree is\n%swant\n%s", text, want)
	}
}

// TestSubjects holds the names of spec/RKE2: who each certificate is, who signed it and what for.
func TestSubjects(t *testing.T) {
	p := params(t)
	ensure(t, p)
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	local := []string{"localhost", "127.0.0.1", "::1"}
	machine := slices.Concat(local, []string{"cp-1.example", "10.0.2.15", "fd00::15", "api.example", "203.0.113.7"})
	for _, c := range []struct {
		path, cn, org, ca string
		usage             []x509.ExtKeyUsage
		names             []string
	}{
		{"server/tls/client-admin", "system:admin", "system:masters", "client-ca", []x509.ExtKeyUsage{client}, nil},
		{"server/tls/client-supervisor", "system:rke2-supervisor", "system:masters", "client-ca", []x509.ExtKeyUsage{client}, nil},
		{"server/tls/client-controller", "system:kube-controller-manager", "", "client-ca", []x509.ExtKeyUsage{client}, nil},
		{"server/tls/client-scheduler", "system:kube-scheduler", "", "client-ca", []x509.ExtKeyUsage{client}, nil},
		{"server/tls/client-kube-apiserver", "system:apiserver", "system:masters", "client-ca", []x509.ExtKeyUsage{client}, nil},
		{"server/tls/client-rke2-cloud-controller", "rke2-cloud-controller-manager", "", "client-ca", []x509.ExtKeyUsage{client}, nil},
		{"server/tls/client-auth-proxy", "system:auth-proxy", "", "request-header-ca", []x509.ExtKeyUsage{client}, nil},
		{"server/tls/serving-kube-apiserver", "kube-apiserver", "", "server-ca", []x509.ExtKeyUsage{server},
			slices.Concat(machine, []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "cp-1", "10.43.0.1"})},
		{"server/tls/kube-scheduler/kube-scheduler", "kube-scheduler", "", "server-ca", []x509.ExtKeyUsage{server}, local},
		{"server/tls/kube-controller-manager/kube-controller-manager", "kube-controller-manager", "", "server-ca", []x509.ExtKeyUsage{server}, local},
		{"server/tls/etcd/client", "etcd-client", "", "etcd/server-ca", []x509.ExtKeyUsage{client}, nil},
		{"server/tls/etcd/server-client", "etcd-server", "", "etcd/server-ca", []x509.ExtKeyUsage{server, client}, append(machine, "kine.sock")},
		{"server/tls/etcd/peer-server-client", "etcd-peer", "", "etcd/peer-ca", []x509.ExtKeyUsage{server, client}, append(machine, "kine.sock")},
		{"agent/client-kubelet", "system:node:cp-1.example", "system:nodes", "client-ca", []x509.ExtKeyUsage{client}, nil},
		{"agent/serving-kubelet", "cp-1.example", "", "server-ca", []x509.ExtKeyUsage{server}, slices.Concat(local, []string{"cp-1.example", "10.0.2.15", "fd00::15"})},
		{"agent/client-kube-proxy", "system:kube-proxy", "", "client-ca", []x509.ExtKeyUsage{client}, nil},
		{"agent/client-rke2-controller", "system:rke2-controller", "", "client-ca", []x509.ExtKeyUsage{client}, nil},
	} {
		base := filepath.Join(filepath.Dir(p.ServerDir), c.path)
		cert := readCert(t, base+".crt")
		if cert.Subject.CommonName != c.cn || strings.Join(cert.Subject.Organization, ",") != c.org {
			t.Errorf("%s: subject is %v", c.path, cert.Subject)
		}
		if !slices.Equal(cert.ExtKeyUsage, c.usage) {
			t.Errorf("%s: usage is %v, want %v", c.path, cert.ExtKeyUsage, c.usage)
		}
		if err := cert.CheckSignatureFrom(readCert(t, p.tls(c.ca+".crt"))); err != nil {
			t.Errorf("%s: not signed by %s: %v", c.path, c.ca, err)
		}
		got := slices.Clone(cert.DNSNames)
		for _, ip := range cert.IPAddresses {
			got = append(got, ip.String())
		}
		slices.Sort(got)
		want := slices.Clone(c.names)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: names are %v, want %v", c.path, got, want)
		}
		if cert.NotBefore != epoch.Add(-time.Hour) || cert.NotAfter != epoch.Add(leafLife) {
			t.Errorf("%s: valid %v to %v", c.path, cert.NotBefore, cert.NotAfter)
		}
		if _, err := tls.LoadX509KeyPair(base+".crt", base+".key"); err != nil {
			t.Errorf("%s: %v", c.path, err)
		}
	}
	ca := readCert(t, p.tls("server-ca.crt"))
	if want := fmt.Sprintf("rke2-server-ca@%d", epoch.Unix()); ca.Subject.CommonName != want || ca.NotAfter != epoch.Add(caLife) {
		t.Errorf("server CA: %v until %v, want %s", ca.Subject, ca.NotAfter, want)
	}
}

func TestSecondEnsureChangesNothing(t *testing.T) {
	p := params(t)
	first := ensure(t, p)
	before := tree(t, p)
	p.Now = p.Now.Add(200 * 24 * time.Hour)
	if r := ensure(t, p); len(r.Written) != 0 || !r.Renew.Equal(first.Renew) {
		t.Errorf("wrote %v; renew %v, was %v", r.Written, r.Renew, first.Renew)
	}
	if after := tree(t, p); !mapsEqual(before, after) {
		t.Error("files changed")
	}
	if days := first.Renew.Sub(epoch).Hours() / 24; days < 242 || days > 245 {
		t.Errorf("first renewal after %.0f days, want two thirds of a year", days)
	}
}

func mapsEqual(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// TestReissue changes one thing at a time and names the certificates that must follow.
func TestReissue(t *testing.T) {
	leaves := 17
	for _, c := range []struct {
		name   string
		change func(t *testing.T, p *Params)
		want   []string // certificates written, without the folder; nil with all: every leaf
		all    bool
	}{
		{"due", func(t *testing.T, p *Params) { p.Now = p.Now.Add(245 * 24 * time.Hour) }, nil, true},
		{"ended", func(t *testing.T, p *Params) { p.Now = p.Now.Add(800 * 24 * time.Hour) }, nil, true},
		{"new address", func(t *testing.T, p *Params) { p.Addresses = []netip.Addr{netip.MustParseAddr("10.0.2.16")} },
			[]string{"peer-server-client.crt", "server-client.crt", "serving-kube-apiserver.crt", "serving-kubelet.crt"}, false},
		{"new tls-san", func(t *testing.T, p *Params) { p.SANs = append(p.SANs, "more.example") },
			[]string{"peer-server-client.crt", "server-client.crt", "serving-kube-apiserver.crt"}, false},
		{"fewer tls-san", func(t *testing.T, p *Params) { p.SANs = nil }, []string{}, false},
		{"missing certificate", func(t *testing.T, p *Params) { remove(t, p.tls("client-admin.crt")) }, []string{"client-admin.crt"}, false},
		{"another key", func(t *testing.T, p *Params) {
			copyFile(t, p.tls("client-scheduler.key"), p.tls("client-controller.key"))
		}, []string{"client-controller.crt"}, false},
		{"broken key", func(t *testing.T, p *Params) { write(t, p.tls("client-controller.key"), "x") }, []string{"client-controller.crt"}, false},
		{"broken certificate", func(t *testing.T, p *Params) { write(t, p.tls("client-controller.crt"), "x") }, []string{"client-controller.crt"}, false},
		{"somebody else's certificate", func(t *testing.T, p *Params) { copyFile(t, p.tls("client-admin.crt"), p.tls("client-controller.crt")) }, []string{"client-controller.crt"}, false},
		{"node renamed", func(t *testing.T, p *Params) { p.NodeName = "cp-2" },
			[]string{"client-kubelet.crt", "peer-server-client.crt", "server-client.crt", "serving-kube-apiserver.crt", "serving-kubelet.crt"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := params(t)
			ensure(t, p)
			authorities := tree(t, p)
			c.change(t, &p)
			r := ensure(t, p)
			var got []string
			for _, path := range r.Written {
				if strings.HasSuffix(path, ".crt") {
					got = append(got, filepath.Base(path))
				}
				if strings.Contains(path, "-ca.") {
					t.Errorf("an authority was written: %s", path)
				}
			}
			slices.Sort(got)
			if c.all && len(got) != leaves || !c.all && !slices.Equal(got, c.want) {
				t.Errorf("wrote %v, want %v", got, c.want)
			}
			for path, text := range tree(t, p) {
				if strings.Contains(path, "-ca.") && authorities[path] != text {
					t.Errorf("%s changed", path)
				}
			}
			p.Now = p.Now.Add(time.Hour)
			if r := ensure(t, p); len(r.Written) != 0 {
				t.Errorf("a third Ensure wrote %v", r.Written)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, string(data))
}

// TestKeysOutliveRenewal: a renewed certificate keeps its key, and the administrator's kubeconfig follows.
func TestKeysOutliveRenewal(t *testing.T) {
	p := params(t)
	ensure(t, p)
	before := tree(t, p)
	p.Now = p.Now.Add(300 * 24 * time.Hour)
	ensure(t, p)
	after := tree(t, p)
	for path := range before {
		if same := before[path] == after[path]; strings.HasSuffix(path, ".key") != same && !strings.Contains(path, "-ca.") && !strings.HasSuffix(path, ".kubeconfig") {
			t.Errorf("%s: unchanged is %v", path, same)
		}
	}
}

// TestPowerCutAtEveryPoint cuts the first run after each of its files: the next run completes the set, and keeps
// what was there.
func TestPowerCutAtEveryPoint(t *testing.T) {
	p := params(t)
	written := ensure(t, p).Written
	whole := tree(t, p)
	root := filepath.Dir(p.ServerDir)
	for n := range written {
		cut := p
		base := t.TempDir()
		move := func(path string) string {
			rel, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			return filepath.Join(base, rel)
		}
		cut.ServerDir, cut.AgentDir, cut.Kubeconfig = move(p.ServerDir), move(p.AgentDir), move(p.Kubeconfig)
		for _, path := range written[:n] {
			if err := os.MkdirAll(filepath.Dir(move(path)), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, move(path), readText(t, path))
		}
		ensure(t, cut)
		after := tree(t, cut)
		if len(after) != len(whole) {
			t.Fatalf("cut after %d files: %d files then, want %d", n, len(after), len(whole))
		}
		for _, path := range written[:n] {
			rel, _ := filepath.Rel(root, path)
			if strings.Contains(rel, "-ca.") && after[rel] != whole[rel] {
				t.Errorf("cut after %d files: authority %s changed", n, rel)
			}
		}
		for _, spec := range leafSpecs(cut) {
			if _, err := tls.LoadX509KeyPair(spec.path+".crt", spec.path+".key"); err != nil {
				t.Errorf("cut after %d files: %s: %v", n, spec.cn, err)
			}
		}
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestKubeconfigs(t *testing.T) {
	p := params(t)
	p.KubeconfigMode = 0o640
	p.LocalAPIServer = "https://127.0.0.1:6444"
	ensure(t, p)
	var refs, data, local kubeconfig
	for path, into := range map[string]*kubeconfig{
		p.cred("controller.kubeconfig"): &refs, p.Kubeconfig: &data, filepath.Join(p.AgentDir, "kubelet.kubeconfig"): &local,
	} {
		if err := yaml.Unmarshal([]byte(readText(t, path)), into); err != nil {
			t.Fatal(err)
		}
	}
	want := user{Cert: p.tls("client-controller.crt"), Key: p.tls("client-controller.key")}
	if refs.Users[0].User != want || refs.Clusters[0].Name != "local" || refs.CurrentContext != "Default" || refs.Clusters[0].Cluster != (cluster{CA: p.tls("server-ca.crt"), Server: defaultAPIServer}) {
		t.Errorf("controller: %+v", refs)
	}
	if got := local.Clusters[0].Cluster.Server; got != p.LocalAPIServer {
		t.Errorf("kubelet: got server %q, want the node's own way %q", got, p.LocalAPIServer)
	}
	cert, err := base64.StdEncoding.DecodeString(data.Users[0].User.CertData)
	if err != nil || string(cert) != readText(t, p.tls("client-admin.crt")) || data.CurrentContext != "default" {
		t.Errorf("administrator: %+v", data)
	}
	if info, err := os.Stat(p.Kubeconfig); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
}
