package server

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"keelson/node/config"
)

var update = flag.Bool("update", false, "rewrite golden files")

// documented are settings with something in every field, and with a secret wherever settings can hold one.
func documented(t *testing.T) config.Config {
	t.Helper()
	c := config.Default()
	c.Token, c.AgentToken = "hush-token", "hush-agent-token"
	c.S3.AccessKey, c.S3.SecretKey, c.S3.SessionToken = "hush-access", "hush-key", "hush-session"
	c.APIServer.Args = []string{"oidc-client-secret=hush-oidc", "tls-min-version=VersionTLS13", "tls-cipher-suites=TLS_AES_128_GCM_SHA256,TLS_AES_256_GCM_SHA384"}
	c.APIServer.ExtraEnv = []string{"PASSWORD=hush-env"}
	c.KubeletArgs = []string{"x=hush-kubelet"}
	c.CloudController.Args = []string{"key=hush-cloud"}
	c.TLSSAN, c.Disable = []string{"k.example"}, []string{"rke2-coredns"}
	c.DisableKubeProxy, c.DisableScheduler = true, true
	c.DisableControllerManager = true
	c, err := c.Resolve(config.Host{Name: "cp-1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.2.15")}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDocument(t *testing.T) {
	defaults, err := config.Default().Resolve(config.Host{Name: "cp-1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.2.15")}})
	if err != nil {
		t.Fatal(err)
	}
	for name, settings := range map[string]config.Config{"defaults": defaults, "all": documented(t)} {
		t.Run(name, func(t *testing.T) {
			got, err := json.MarshalIndent(documentOf(settings, "v1.37.2+keelson1"), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			if bytes.Contains(got, []byte("hush")) || bytes.Contains(got, []byte("IPSECPSK")) {
				t.Errorf("a secret stands in it:\n%s", got)
			}
			golden := filepath.Join("testdata", "document-"+name+".json")
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
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// The last of two flags counts, with dashes before it or none, and no flag that only begins alike.
func TestFlagOf(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, ""},
		{[]string{"tls-min-version=VersionTLS12", "--tls-min-version=VersionTLS13"}, "VersionTLS13"},
		{[]string{"tls-min-version-x=VersionTLS13", "v=2"}, ""},
	} {
		if got := flagOf(c.args, "tls-min-version"); got != c.want {
			t.Errorf("%v: got %q, want %q", c.args, got, c.want)
		}
	}
}

// With the embedded registry RKE2's agents need a key of 32 bytes in hexadecimal form, which all servers say alike and
// which tells nothing of what it is made of. Without it there is none.
func TestPreSharedKey(t *testing.T) {
	key := func(s *Server) string {
		t.Helper()
		prepare(t, s)
		out, err := s.clusterConfig(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			EmbeddedRegistry bool
			IPSECPSK         string
		}
		if err := json.Unmarshal(out, &d); err != nil || d.EmbeddedRegistry != s.settings.EmbeddedRegistry {
			t.Fatalf("%v: %s", err, out)
		}
		return d.IPSECPSK
	}
	if got := key(newServer(t, nil)); got != "" {
		t.Errorf("without the embedded registry: got %q", got)
	}
	sharing := func(c *config.Config) { c.EmbeddedRegistry = true }
	one, other := newServer(t, sharing), newServer(t, sharing)
	first := key(one)
	if raw, err := hex.DecodeString(first); err != nil || len(raw) != 32 {
		t.Errorf("got %q, %v, want 32 bytes", first, err)
	}
	if again := key(one); again != first {
		t.Errorf("asked again: got %q, want %q", again, first)
	}
	if others := key(other); others == first {
		t.Error("two clusters have the same key")
	}
	if err := os.Remove(one.server("tls", "client-ca.key")); err != nil {
		t.Fatal(err)
	}
	if out, err := one.clusterConfig(t.Context()); err == nil {
		t.Errorf("without an authority: got %s", out)
	}
}
