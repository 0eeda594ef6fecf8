package tunnel

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/server/egressselector"
)

var update = flag.Bool("update", false, "rewrite testdata")

// TestEgressConfig reads the file with kube-apiserver's own loader and checks of its flags.
func TestEgressConfig(t *testing.T) {
	const golden = "testdata/egress-selector-config.yaml"
	got := EgressConfig("/tls/client-kube-apiserver.crt", "/tls/client-kube-apiserver.key", "/tls/server-ca.crt")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("EgressConfig = %s\nwant %s", got, want)
	}
}

func TestEgressConfigIsKubernetes(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for _, name := range []string{"cert: #1.crt", "key 'a' \"b\".key", "ca.crt"} { // names that need quoting in YAML
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	file := filepath.Join(dir, "egress.yaml")
	if err := os.WriteFile(file, EgressConfig(paths[0], paths[1], paths[2]), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, err := egressselector.ReadEgressSelectorConfiguration(file)
	if err != nil {
		t.Fatal(err)
	}
	if errs := egressselector.ValidateEgressSelectorConfiguration(conf); len(errs) > 0 {
		t.Fatalf("kube-apiserver would refuse it: %v", errs)
	}
	if len(conf.EgressSelections) != 1 {
		t.Fatalf("selections = %+v; want one", conf.EgressSelections)
	}
	one := conf.EgressSelections[0]
	if one.Name != "cluster" || one.Connection.ProxyProtocol != apiserver.ProtocolHTTPConnect {
		t.Errorf("selection = %+v; want cluster by HTTPConnect", one)
	}
	tcp := one.Connection.Transport.TCP
	if tcp == nil || tcp.URL != "https://127.0.0.1:9345" || tcp.TLSConfig == nil ||
		*tcp.TLSConfig != (apiserver.TLSConfig{CABundle: paths[2], ClientKey: paths[1], ClientCert: paths[0]}) {
		t.Errorf("transport = %+v, tls %+v", tcp, tcp.TLSConfig)
	}
}
