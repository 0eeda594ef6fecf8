package flannel

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParseArguments(t *testing.T) {
	o, err := ParseArguments([]string{"--ip-masq", "--kube-subnet-mgr", "--iface=eth0", "-iface", "eth1", "--healthz-port=10248"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !o.MasqueradePods || o.HealthzPort != 10248 || !reflect.DeepEqual([]string(o.Interfaces), []string{"eth0", "eth1"}) {
		t.Errorf("got %+v", o)
	}
	if o.SubnetFile != "/run/flannel/subnet.env" || o.NetConf != "/etc/kube-flannel/net-conf.json" || !o.ForwardRules {
		t.Errorf("defaults: got %+v, want upstream's", o)
	}
	cases := []struct{ name, arg, wantErr string }{
		{"no subnets of etcd", "--kube-subnet-mgr=false", "Kubernetes API only"},
		{"etcd flags", "--etcd-endpoints=http://127.0.0.1:2379", "etcd-endpoints"},
		{"no flag", "eth0", `"eth0" is not a flag`},
		{"bad port", "--healthz-port=x", "healthz-port"},
	}
	for _, c := range cases {
		if _, err := ParseArguments([]string{c.arg}, io.Discard); err == nil || !strings.Contains(err.Error(), c.wantErr) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.wantErr)
		}
	}
}

func TestCandidates(t *testing.T) {
	cases := []struct {
		name string
		o    Options
		want []candidate
	}{
		{"nothing said", Options{}, []candidate{{}}},
		{"by address", Options{PublicIP: "10.0.0.1"}, []candidate{{name: "10.0.0.1"}}},
		{"all, in upstream's order", Options{Interfaces: list{"eth0"}, InterfaceRegexes: list{"^en"}, InterfaceReach: "10.0.0.9", PublicIP: "10.0.0.1"},
			[]candidate{{name: "eth0"}, {regex: "^en"}, {reach: "10.0.0.9"}}},
	}
	for _, c := range cases {
		if got := c.o.candidates(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestHealth(t *testing.T) {
	h := &health{}
	get := func(path string) int {
		r := httptest.NewRecorder()
		h.handler().ServeHTTP(r, httptest.NewRequest(http.MethodGet, path, nil))
		return r.Code
	}
	if got := [2]int{get("/healthz"), get("/readyz")}; got != [2]int{200, 503} {
		t.Errorf("before: got %v, want alive and not ready", got)
	}
	h.ready.Store(true)
	if got := get("/readyz"); got != 200 {
		t.Errorf("after: got %d, want ready", got)
	}
}

func TestHealthPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = Run(context.Background(), Options{HealthzIP: "127.0.0.1", HealthzPort: l.Addr().(*net.TCPAddr).Port})
	if err == nil || !strings.Contains(err.Error(), "listen for health checks") {
		t.Errorf("got %v, want the port named", err)
	}
}

func TestRunNamesWhatIsMissing(t *testing.T) {
	t.Setenv("NODE_NAME", "cp-1")
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	err := Run(context.Background(), Options{Kubeconfig: kubeconfig})
	if err == nil || !strings.Contains(err.Error(), "watch nodes") {
		t.Errorf("no kubeconfig: got %v", err)
	}
	config := "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\ncontexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n"
	if err := os.WriteFile(kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "net-conf.json")
	err = Run(context.Background(), Options{Kubeconfig: kubeconfig, NetConf: missing, AnnotationPrefix: "flannel.alpha.coreos.com"})
	if err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("no network configuration: got %v, want %s named", err, missing)
	}
}
