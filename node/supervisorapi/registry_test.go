package supervisorapi

import (
	"io"
	"net/http"
	"testing"
)

// Without the embedded registry its paths are not there.
func TestWithoutRegistry(t *testing.T) {
	b := start(t, unlimited())
	b.install(t)
	kubelet := credential{cert: "agent/client-kubelet"}
	for _, path := range []string{"/v2", "/v2/", "/v2/a/manifests/x", "/v1-rke2/p2p"} {
		if res, body := b.do(t, kubelet, "GET", path, nil); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: got %d %s, want 404", path, res.StatusCode, body)
		}
	}
}

// An agent's listener answers for images and nothing else: not even who has a certificate of the cluster's learns more.
func TestInstallRegistry(t *testing.T) {
	b := start(t, unlimited())
	images := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "image") })
	ca := b.read(t, "server/tls/client-ca.crt")
	if err := b.InstallRegistry(ca, nil); err == nil {
		t.Error("without a registry: no error")
	}
	if err := b.InstallRegistry([]byte("x"), images); err == nil {
		t.Error("without an authority: no error")
	}
	if res, _ := b.do(t, credential{}, "GET", "/ping", nil); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("before it is installed: got %d, want 503", res.StatusCode)
	}
	for range 2 { // again, as after a renewal
		if err := b.InstallRegistry(ca, images); err != nil {
			t.Fatal(err)
		}
	}
	nobody, kubelet, admin := credential{}, credential{cert: "agent/client-kubelet"}, credential{cert: "server/tls/client-admin"}
	server, boot := credential{user: "server", password: serverPassword}, credential{bearer: "abcdef.0123456789abcdef"}
	for _, c := range []struct {
		name string
		who  credential
		path string
		code int
	}{
		{"ping", nobody, "/ping", 200},
		{"image", kubelet, "/v2/a/manifests/x", 200},
		{"image, containerd", credential{cert: "agent/client-rke2-controller"}, "/v2/a/manifests/x", 200},
		{"image, nobody", nobody, "/v2/a/manifests/x", 403},
		{"image, admin", admin, "/v2/a/manifests/x", 403},
		{"image, kube-proxy", credential{cert: "agent/client-kube-proxy"}, "/v2/a/manifests/x", 403},
		{"image, a serving certificate", credential{cert: "agent/serving-kubelet"}, "/v2/a/manifests/x", 401},
		{"image by a token that the agent cannot judge", server, "/v2/a/manifests/x", 401},
		{"image by a bootstrap token", boot, "/v2/a/manifests/x", 401},
		{"bootstrap data", server, "/v1-rke2/server-bootstrap", 401},
		{"settings", kubelet, "/v1-rke2/config", 404},
		{"authorities", kubelet, "/cacerts", 404},
		{"metrics", admin, "/metrics", 403},
	} {
		if res, body := b.do(t, c.who, "GET", c.path, nil); res.StatusCode != c.code {
			t.Errorf("%s: got %d %s, want %d", c.name, res.StatusCode, body, c.code)
		}
	}
}

// An image is dozens of requests: nodes are not held to a stranger's rate, strangers are.
func TestImagesHaveNoRate(t *testing.T) {
	limits := unlimited()
	limits.RequestsPerSecond, limits.RequestBurst = 0.001, 2
	b := start(t, limits)
	if err := b.Install(b.everything(t)); err != nil {
		t.Fatal(err)
	}
	kubelet := credential{cert: "agent/client-kubelet"}
	for i := range 10 {
		if res, body := b.do(t, kubelet, "GET", "/v2/a/manifests/x", nil); res.StatusCode != 200 {
			t.Fatalf("request %d: got %d %s", i, res.StatusCode, body)
		}
	}
	codes := map[int]int{}
	for range 10 {
		res, _ := b.do(t, credential{}, "GET", "/v2/a/manifests/x", nil)
		codes[res.StatusCode]++
	}
	if codes[http.StatusForbidden] != 2 || codes[http.StatusTooManyRequests] != 8 {
		t.Errorf("a stranger: got %v, want 2 times 403 and 8 times 429", codes)
	}
}
