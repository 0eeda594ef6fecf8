package certificate

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/node/pki"
)

func start() time.Time { return time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC) }

// machine is the data folder of a server with all its certificates.
func machine(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := pki.Ensure(params(dir, start())); err != nil {
		t.Fatal(err)
	}
	return dir
}

func params(dir string, now time.Time) pki.Params {
	return pki.Params{
		ServerDir: filepath.Join(dir, "server"), AgentDir: filepath.Join(dir, "agent"), NodeName: "cp-1", ClusterDomain: "cluster.local",
		Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Now: now,
	}
}

func TestLookFindsAll(t *testing.T) {
	dir := machine(t)
	for name, path := range map[string]string{"a pod's": "agent/containerd/x/pod.crt", "a scrap": "server/tls/temporary-certs/apiserver.crt"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err := Look(dir, start())
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]Entry{}
	for _, e := range all {
		if _, twice := files[e.File]; twice {
			t.Errorf("%s is listed twice", e.File)
		}
		files[e.File] = e
		if e.Status != "ok" {
			t.Errorf("%s: %s, right after it was made", e.File, e.Status)
		}
	}
	for path, want := range map[string]string{
		"server/tls/client-admin.crt": "ClientAuth", "server/tls/etcd/peer-server-client.crt": "ClientAuth,ServerAuth",
		"server/tls/server-ca.crt": "CertSign", "agent/serving-kubelet.crt": "ServerAuth",
	} {
		if got := strings.Join(files[filepath.Join(dir, path)].Usages, ","); got != want {
			t.Errorf("%s: got usages %q, want %q", path, got, want)
		}
	}
	if want := 17 + 5 + 2; len(all) != want { // leaves, authorities, and the agent's copies of two of them
		t.Errorf("got %d certificates, want %d", len(all), want)
	}
}

func TestStatusFollowsTheClock(t *testing.T) {
	dir := machine(t)
	const day = 24 * time.Hour
	for _, c := range []struct {
		after    time.Duration
		leaf, ca string
	}{
		{0, "ok", "ok"}, {244 * day, "ok", "ok"}, {246 * day, "warning", "ok"}, {366 * day, "expired", "ok"},
		{3284 * day, "expired", "ok"}, {3286 * day, "expired", "warning"}, {3651 * day, "expired", "expired"},
	} {
		all, err := Look(dir, start().Add(c.after))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			want := c.leaf
			if strings.HasSuffix(e.File, "-ca.crt") {
				want = c.ca
			}
			if e.Status != want {
				t.Errorf("after %v: %s is %s, want %s", c.after, e.File, e.Status, want)
			}
		}
	}
}

func TestLookErrors(t *testing.T) {
	empty := t.TempDir()
	if _, err := Look(empty, start()); err == nil || !strings.Contains(err.Error(), "part of a cluster?") {
		t.Errorf("nothing there: got %v", err)
	}
	dir := machine(t)
	broken := filepath.Join(dir, "agent", "serving-kubelet.crt")
	if err := os.WriteFile(broken, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Look(dir, start()); err == nil || !strings.Contains(err.Error(), broken) {
		t.Errorf("broken file: got %v, want it named", err)
	}
}

func TestRender(t *testing.T) {
	all := []Entry{{File: "/a.crt", Subject: "CN=a", Issuer: "CN=ca", Usages: []string{"ClientAuth"}, Ends: start(), Status: "ok"}}
	text, err := Render(all, "text")
	if want := "FILE    SUBJECT  USAGES      ENDS                  STATUS\n/a.crt  CN=a     ClientAuth  2026-11-01T12:00:00Z  ok\n"; err != nil || string(text) != want {
		t.Errorf("got %q, %v, want %q", text, err, want)
	}
	data, err := Render(all, "json")
	var back []Entry
	if err != nil || json.Unmarshal(data, &back) != nil || len(back) != 1 || back[0].Subject != "CN=a" {
		t.Errorf("JSON does not read back: %s, %v", data, err)
	}
	if _, err := Render(all, "xml"); err == nil {
		t.Error("an unknown format was written")
	}
}
