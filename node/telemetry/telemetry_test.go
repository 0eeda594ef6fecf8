package telemetry

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"keelson/node/pki"
)

// cluster answers reviews: the token "monitor" may get /metrics, "admin" everything, "pod" nothing, others are nobody.
func cluster(t *testing.T) kubernetes.Interface {
	t.Helper()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/tokenreviews") {
			var review authenticationv1.TokenReview
			_ = json.NewDecoder(r.Body).Decode(&review)
			switch review.Spec.Token {
			case "monitor", "admin", "pod", "unlucky":
				review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: review.Spec.Token}}
			}
			_ = json.NewEncoder(w).Encode(review)
			return
		}
		var review authorizationv1.SubjectAccessReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		want := review.Spec.NonResourceAttributes
		if review.Spec.User == "unlucky" {
			http.Error(w, "{}", http.StatusBadRequest)
			return
		}
		review.Status.Allowed = want != nil && want.Verb == "get" && (review.Spec.User == "admin" || review.Spec.User == "monitor" && want.Path == "/metrics")
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(api.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: api.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func newTelemetry(t *testing.T) *Telemetry {
	t.Helper()
	dir := t.TempDir()
	_, err := pki.Ensure(pki.Params{
		ServerDir: filepath.Join(dir, "server"), AgentDir: filepath.Join(dir, "agent"), NodeName: "cp-1",
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, ServiceIPs: []netip.Addr{netip.MustParseAddr("10.43.0.1")},
		ClusterDomain: "cluster.local", LocalAPIServer: "https://127.0.0.1:6444", Kubeconfig: filepath.Join(dir, "rke2.yaml"), KubeconfigMode: 0o600, Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	tel, err := New(Config{Client: cluster(t), ClientCA: filepath.Join(dir, "server", "tls", "client-ca.crt"), DataDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return tel
}

func TestWhoIsLetIn(t *testing.T) {
	tel := newTelemetry(t)
	for _, c := range []struct {
		name, token, path string
		code              int
		want              string
	}{
		{"nobody", "", "/metrics", 401, "not authorized"},
		{"a wrong token", "guess", "/metrics", 401, "not authorized"},
		{"a pod without the right", "pod", "/metrics", 403, "forbidden"},
		{"who may see metrics", "monitor", "/metrics", 200, "go_goroutines"},
		{"no profiles by that", "monitor", "/debug/pprof/", 403, "forbidden"},
		{"an administrator", "admin", "/debug/pprof/", 200, "goroutine"},
		{"one profile", "admin", "/debug/pprof/goroutine", 200, ""},
		{"none of that name", "admin", "/debug/pprof/absent", 404, ""},
		{"program", "admin", "/debug/pprof/cmdline", 200, ""},
		{"nobody can tell", "unlucky", "/metrics", 503, "rights cannot be looked up"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, c.path, nil)
			if c.token != "" {
				r.Header.Set("Authorization", "Bearer "+c.token)
			}
			w := httptest.NewRecorder()
			if handler := tel.Metrics(); c.path == "/metrics" {
				handler.ServeHTTP(w, r)
			} else {
				tel.Profiles().ServeHTTP(w, r)
			}
			body, _ := io.ReadAll(w.Result().Body)
			if w.Code != c.code || !strings.Contains(string(body), c.want) {
				t.Errorf("got %d %.200s, want %d with %q", w.Code, body, c.code, c.want)
			}
		})
	}
}

func TestMetricsTellOfCertificates(t *testing.T) {
	tel := newTelemetry(t)
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Authorization", "Bearer monitor")
	w := httptest.NewRecorder()
	tel.Metrics().ServeHTTP(w, r)
	body := w.Body.String()
	for _, want := range []string{`rke2_certificate_expiration_seconds{file="/server/tls/serving-kube-apiserver.crt"`, `file="/server/tls/etcd/peer-server-client.crt"`} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is not among the metrics", want)
		}
	}
	if strings.Contains(body, "error") && strings.Contains(body, "gathering") {
		t.Errorf("not all was gathered: %.300s", body)
	}
}

func TestNewNeeds(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("without a client: no error")
	}
	_, err := New(Config{Client: cluster(t), ClientCA: filepath.Join(t.TempDir(), "absent"), Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("without authorities: got %v", err)
	}
}
