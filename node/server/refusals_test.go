package server

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/node/agreement"
	"keelson/node/config"
	"keelson/node/jointoken"
	"keelson/node/systemimage/layouttest"
	"keelson/node/token"
	"keelson/node/trust"
)

func log() *slog.Logger { return slog.New(slog.DiscardHandler) }

// refusals holds the running cluster to scenario 5: whoever may not join is told why, and what to do. Wrong passwords
// are spread over the servers, which stop listening to an address after a handful.
func (s *site) refusals(a, b, c *box) {
	wrong := token.Secret("K10" + strings.Repeat("ab", 32) + "::server:" + clusterToken)
	imposter, step := s.impersonate(a), s.t
	step.Run("servers", func(t *testing.T) {
		s.t = t
		for i, refused := range []struct {
			name   string
			change func(*config.Config)
			images string // of another version
			kind   error
			says   string
		}{
			{"wrong token", func(c *config.Config) { c.Token = "wrong" }, "", trust.ErrWrongToken, "copy the token from"},
			{"wrong hash", func(c *config.Config) { c.Token = config.Secret(wrong) }, "", trust.ErrCAHash, "and the token names"},
			{"somebody else's certificate", func(c *config.Config) {
				c.Server, c.Token = imposter, config.Secret(a.whole())
			}, "", trust.ErrCertificate, "check the address"},
			{"an old version", nil, "v1.35.9", trust.ErrVersion, "start this one with an image that fits"},
			{"a new version", nil, "v1.39.0", trust.ErrVersion, "start this one with an image that fits"},
			{"other settings", func(c *config.Config) { c.ClusterDomain = "other.local" }, "", nil, `cluster-domain is "other.local" here`},
		} {
			x := s.newBox(20+i, "refused", b, refused.change)
			if refused.images != "" {
				x.server.places.images = imagesOf(t, refused.images)
			}
			err := x.refused(refused.says)
			var differs *agreement.ErrDiffers
			if refused.kind != nil && !errors.Is(err, refused.kind) || refused.kind == nil && !errors.As(err, &differs) {
				t.Errorf("%s: got %v, want %v", refused.name, err, refused.kind)
			}
			if _, err := os.Stat(x.server.server("tls", "server-ca.crt")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: authorities were written: %v", refused.name, err)
			}
		}
		s.votersAre(a, b, c)
	})
	step.Run("agents", func(t *testing.T) {
		s.t = t
		end := time.Now().Add(-time.Minute)
		expired := s.bootstrapToken("aaaaaa", end)
		good := s.bootstrapToken("bbbbbb", time.Now().Add(time.Hour))
		for _, refused := range []struct {
			name   string
			server string
			token  token.Secret
			change func(*trust.Config)
			kind   error
			says   string
		}{
			{"wrong token", a.url(), "wrong", nil, trust.ErrWrongToken, "copy the token from"},
			{"wrong hash", a.url(), wrong, nil, trust.ErrCAHash, "and the token names"},
			{"expired token", c.url(), expired, nil, trust.ErrBootstrapToken, "the bootstrap token aaaaaa expired at " + end.UTC().Format(time.RFC3339) + ": make a new one with `node token create`"},
			{"expired token, wrong secret", c.url(), "aaaaaa.0000000000000001", nil, trust.ErrBootstrapToken, "token aaaaaa is unknown"},
			{"an hour behind", a.url(), clusterToken, func(c *trust.Config) { c.Now = func() time.Time { return time.Now().Add(-time.Hour) } }, trust.ErrClock, "set the clocks"},
			{"an hour ahead", a.url(), clusterToken, func(c *trust.Config) { c.Now = func() time.Time { return time.Now().Add(time.Hour) } }, trust.ErrClock, "set the clocks"},
			{"somebody else's certificate", imposter, a.whole(), nil, trust.ErrCertificate, "check the address"},
			{"a token that holds", c.url(), good, nil, nil, ""},
		} {
			_, err := s.newAgent("refused", a).trust(refused.server, refused.token, refused.change)
			if !errors.Is(err, refused.kind) || err != nil && !strings.Contains(err.Error(), refused.says) {
				t.Errorf("%s: got %v, want %v and %q", refused.name, err, refused.kind, refused.says)
			}
		}
	})
}

// imagesOf is an image of another version.
func imagesOf(t *testing.T, version string) string {
	var all []layouttest.Image
	for _, name := range []string{"pause", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "cloud-controller-manager", "kube-proxy", "flannel", "coredns", "network-policy", "metrics-server", "local-path"} {
		all = append(all, layouttest.Image{Name: "registry.example/" + name + ":" + version, Layers: []string{"one"}, Command: []string{"/" + name}})
	}
	return layouttest.Write(t, t.TempDir(), map[string]layouttest.Layer{"one": {"program": "x"}}, all...)
}

// impersonate answers with what the cluster's authority looks like, and without its key.
func (s *site) impersonate(a *box) string {
	s.t.Helper()
	ca, err := os.ReadFile(a.server.server("tls", "server-ca.crt"))
	if err != nil {
		s.t.Fatal(err)
	}
	t := s.t
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("an imposter was given a token")
		}
		_, _ = w.Write(ca)
	}))
	s.t.Cleanup(server.Close)
	return server.URL
}

// bootstrapToken makes one for agents.
func (s *site) bootstrapToken(id string, expires time.Time) token.Secret {
	s.t.Helper()
	client := jointoken.Client{Secrets: s.api.CoreV1().Secrets(metav1.NamespaceSystem)}
	secret := strings.Repeat("0", 16)
	if err := client.Create(s.ctx, jointoken.Token{
		ID: id, Secret: token.Secret(secret), Expires: expires, Usages: jointoken.Usages(), Groups: []string{jointoken.DefaultGroup},
	}); err != nil {
		s.t.Fatal(err)
	}
	return token.Secret(id + "." + secret)
}
