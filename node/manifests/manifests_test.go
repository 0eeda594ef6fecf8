package manifests

import (
	"bytes"
	"errors"
	"flag"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/coredns/caddy/caddyfile"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"keelson/node/config"
)

var update = flag.Bool("update", false, "write golden files anew")

const source = "../../configs/manifests"

func params() Params {
	return Params{
		ClusterCIDR: networks("10.42.0.0/16"), ServiceCIDR: networks("10.43.0.0/16"), ClusterDNS: addresses("10.43.0.10"), ClusterDomain: "cluster.local",
		Images:    map[string]string{"coredns": "registry.keelson.internal/coredns:v1", "flannel": "registry.keelson.internal/flannel:v1", "network-policy": "registry.keelson.internal/network-policy:v1", "metrics-server": "registry.keelson.internal/metrics-server:v1", "local-path": "registry.keelson.internal/local-path:v1", "kube-proxy": "x"},
		NodePorts: config.PortRange{First: 30000, Last: 32767},
		CNI:       config.CNIFlannel, FlannelBackend: config.FlannelVXLAN,
	}
}

func networks(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func addresses(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func TestRender(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Params)
		want   []string
	}{
		"default":     {func(*Params) {}, []string{"rke2-coredns.yaml", "rke2-flannel.yaml", "rke2-local-path.yaml", "rke2-metrics-server.yaml", "rke2-network-policy.yaml", "rke2-roles.yaml"}},
		"no network":  {func(p *Params) { p.CNI = config.CNINone }, []string{"rke2-coredns.yaml", "rke2-local-path.yaml", "rke2-metrics-server.yaml", "rke2-roles.yaml"}},
		"no dns":      {func(p *Params) { p.Disable = []string{"rke2-coredns"} }, []string{"rke2-flannel.yaml", "rke2-local-path.yaml", "rke2-metrics-server.yaml", "rke2-network-policy.yaml", "rke2-roles.yaml"}},
		"short names": {func(p *Params) { p.Disable = []string{"metrics-server", "coredns", "local-path"} }, []string{"rke2-flannel.yaml", "rke2-network-policy.yaml", "rke2-roles.yaml"}},
		"unknown one": {func(p *Params) { p.Disable = []string{"rke2-ingress-nginx"} }, []string{"rke2-coredns.yaml", "rke2-flannel.yaml", "rke2-local-path.yaml", "rke2-metrics-server.yaml", "rke2-network-policy.yaml", "rke2-roles.yaml"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := params()
			c.change(&p)
			got, err := Render(os.DirFS(source), p)
			if err != nil {
				t.Fatal(err)
			}
			if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, c.want) {
				t.Errorf("got %q, want %q", names, c.want)
			}
		})
	}
}

// Every document must be an object that the API server knows, with no field it does not.
func TestObjects(t *testing.T) {
	rendered, err := Render(os.DirFS(source), params())
	if err != nil {
		t.Fatal(err)
	}
	known := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(known), apiregistration.AddToScheme(known)); err != nil {
		t.Fatal(err)
	}
	decoder := serializer.NewCodecFactory(known, serializer.EnableStrict).UniversalDeserializer()
	for file, content := range rendered {
		golden(t, file, content)
		for i, document := range bytes.Split(content, []byte("\n---\n")) {
			object, _, err := decoder.Decode(document, nil, nil)
			if err != nil {
				t.Errorf("%s: document %d: %v", file, i+1, err)
				continue
			}
			checkPod(t, file, object)
		}
	}
}

func checkPod(t *testing.T, file string, object runtime.Object) {
	t.Helper()
	switch o := object.(type) {
	case *appsv1.DaemonSet:
		if o.Name != "local-path" && !o.Spec.Template.Spec.HostNetwork {
			t.Errorf("%s: the pod network cannot come up inside itself", file)
		}
	case *appsv1.Deployment:
		if o.Name == "coredns" && o.Spec.Template.Spec.DNSPolicy != corev1.DNSDefault {
			t.Errorf("%s: CoreDNS would ask itself", file)
		}
	case *corev1.Service:
		if o.Name == "kube-dns" && o.Spec.ClusterIP != "10.43.0.10" {
			t.Errorf("%s: cluster IP %s", file, o.Spec.ClusterIP)
		}
	case *corev1.ConfigMap:
		if text, ok := o.Data["Corefile"]; ok {
			if blocks, err := caddyfile.Parse("Corefile", strings.NewReader(text), nil); err != nil || len(blocks) != 1 {
				t.Errorf("Corefile: %v, %v", blocks, err)
			}
		}
	}
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
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
		t.Errorf("%s differs (run with -update after a wanted change)", file)
	}
}

func TestRenderRefuses(t *testing.T) {
	templates := fstest.MapFS{"a.yaml": {Data: []byte("a: 1\nb: ${NOTHING}\nc: ${CLUSTER_DNS\n")}}
	_, err := Render(templates, params())
	for _, want := range []string{"a.yaml: line 2: ${NOTHING}", "CLUSTER_DOMAIN", "a.yaml: line 3: ${CLUSTER_DNS: has no closing brace"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one with %q", err, want)
		}
	}
	p := params()
	p.ClusterDomain = "x\nkind: Secret"
	if _, err := Render(os.DirFS(source), p); err == nil || !strings.Contains(err.Error(), "cannot take") {
		t.Errorf("got error %v for a value with a line break", err)
	}
	p = params()
	p.Images = nil
	if _, err := Render(os.DirFS(source), p); err == nil || !strings.Contains(err.Error(), "IMAGE_FLANNEL") || !strings.Contains(err.Error(), "IMAGE_COREDNS") {
		t.Errorf("got error %v, want both images named", err)
	}
}

func FuzzFill(f *testing.F) {
	f.Add([]byte("a: ${CLUSTER_DNS}"))
	f.Fuzz(func(t *testing.T, content []byte) {
		out, err := fill("f", content, params().values())
		if err == nil && bytes.Contains(out, []byte("${")) && !bytes.Contains(content, []byte("$${")) {
			t.Errorf("%q left in %q", out, content)
		}
	})
}

func TestDisabled(t *testing.T) {
	p := params()
	p.CNI = config.CNINone
	p.Disable = []string{"rke2-coredns", "rke2-flannel", "metrics-server"}
	if got, want := p.Disabled(), []string{"metrics-server", "rke2-coredns", "rke2-flannel", "rke2-metrics-server", "rke2-network-policy"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
