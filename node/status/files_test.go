package status

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"keelson/node/config"
	"keelson/node/etcd"
	"keelson/node/pki"
	"keelson/node/token"
	"keelson/node/trust"
)

// put writes files below a folder.
func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// serverFiles is a server with its certificates, as it stands after a start.
func serverFiles(t *testing.T) (dir, authority string) {
	t.Helper()
	dir = t.TempDir()
	_, err := pki.Ensure(pki.Params{
		ServerDir: filepath.Join(dir, "server"), AgentDir: filepath.Join(dir, "agent"), NodeName: "cp-1", ClusterDomain: "cluster.local",
		Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Now: noon(),
	})
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := os.ReadFile(filepath.Join(dir, "server", "tls", "server-ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if authority, err = token.CAHash(bundle); err != nil {
		t.Fatal(err)
	}
	put(t, dir, map[string]string{"server/cred/passwd": "x,server,server,rke2:server\n"})
	return dir, authority
}

func settings(dir string, change func(*config.Config)) *config.Config {
	c := config.Default()
	c.DataDir = dir
	if change != nil {
		change(&c)
	}
	return &c
}

func TestFilesOfNobody(t *testing.T) {
	dir := t.TempDir()
	r := Files{DataDir: dir, Settings: settings(dir, nil), Version: "v1", Idle: true}.Report(noon())
	if r.State != Stopped || r.Role != "" || r.Node != "" || r.Trust != (Trust{}) || len(r.Problems)+len(r.Certificates) != 0 || r.Etcd != nil || r.Version != "v1" {
		t.Errorf("got %+v", r)
	}
}

// What PID 1 said of the user-data is told line by line, and its absence is no problem.
func TestNotes(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "user-data.notes")
	report := func() Report {
		return Files{DataDir: dir, Settings: settings(dir, nil), Notes: path, Idle: true}.Report(noon())
	}
	if r := report(); len(r.UserData)+len(r.Problems) != 0 {
		t.Errorf("no file: got %v, %v", r.UserData, r.Problems)
	}
	put(t, dir, map[string]string{"user-data.notes": "user-data: nocloud: line 7: packages: is not supported\n\nuser-data: nocloud: line 9: x: is unknown\n"})
	if r := report(); !slices.Equal(r.UserData, []string{"nocloud: line 7: packages: is not supported", "nocloud: line 9: x: is unknown"}) || len(r.Problems) != 0 {
		t.Errorf("got %q, %v", r.UserData, r.Problems)
	}
	put(t, dir, map[string]string{"user-data.notes": strings.Repeat("user-data: x\n", mostNotes)})
	if r := report(); len(r.UserData) > mostNotes {
		t.Errorf("a file without end: got %d lines", len(r.UserData))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if r := report(); len(r.Problems) != 1 || !strings.Contains(r.Problems[0], path) {
		t.Errorf("a folder: got %v", r.Problems)
	}
}

func TestFilesOfServer(t *testing.T) {
	dir, authority := serverFiles(t)
	r := Files{DataDir: dir, Settings: settings(dir, nil), Idle: true}.Report(noon().Add(time.Hour))
	if r.Role != Server || r.Node != "cp-1" || !slices.Equal(r.Parts, []string{PartEtcd, PartControls}) || r.Etcd != nil || r.Snapshot != nil || r.Reset != nil || len(r.Problems) != 0 {
		t.Errorf("got %+v", r)
	}
	if len(r.Certificates) != 24 || r.NextRenewal == nil {
		t.Fatalf("certificates: got %d, next %v", len(r.Certificates), r.NextRenewal)
	}
	if days := r.NextRenewal.At.Sub(noon()).Hours() / 24; days < 242 || days > 245 {
		t.Errorf("next renewal: after %.1f days, want two thirds of a year", days)
	}
	if r.Trust != (Trust{authority, ByOwn}) {
		t.Errorf("trust: got %+v", r.Trust)
	}

	put(t, dir, map[string]string{"server/db/snapshots/etcd-snapshot-cp-1-1700000000": "12345"})
	metadata, err := proto.Marshal(&etcdserverpb.Metadata{NodeID: new(uint64(0xabc)), ClusterID: new(uint64(0xdef))})
	if err != nil {
		t.Fatal(err)
	}
	put(t, etcd.Dir(dir), map[string]string{"name": "cp-1-01234567", "member/snap/.keep": ""})
	log, err := wal.Create(zap.NewNop(), filepath.Join(etcd.Dir(dir), "member", "wal"), metadata)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Dir(etcd.Dir(dir)), map[string]string{"etcd-old-1700000000/x": "", "reset-flag": ""})
	r = Files{DataDir: dir, Settings: settings(dir, func(c *config.Config) { c.ClusterReset = true }), Idle: true}.Report(noon())
	if e := r.Etcd; e == nil || e.Name != "cp-1-01234567" || e.Member != "abc" || e.Cluster != "def" || e.Role != "" {
		t.Errorf("etcd: got %+v", e)
	}
	if s := r.Snapshot; s == nil || s.Name != "etcd-snapshot-cp-1-1700000000" || s.Bytes != 5 || !s.Verified {
		t.Errorf("snapshot: got %+v", s)
	}
	if x := r.Reset; x == nil || !slices.Equal(x.OldData, []string{"etcd-old-1700000000"}) || !strings.Contains(x.State, "take cluster-reset out") {
		t.Errorf("reset: got %+v", x)
	}
	if len(r.Problems) != 0 {
		t.Errorf("problems: %q", r.Problems)
	}
}

func TestFilesTrust(t *testing.T) {
	dir, authority := serverFiles(t)
	other := strings.Repeat("ab", 32)
	for _, x := range []struct {
		name   string
		role   string
		pin    string
		change func(*config.Config)
		want   string
	}{
		{"the token names it", Server, "", func(c *config.Config) { c.Token = config.Secret("K10" + authority + "::server:x") }, ByToken},
		{"the token names it, who was trusted at first use", Server, other, func(c *config.Config) { c.Token = config.Secret("K10" + authority + "::server:x") }, ByToken},
		{"first use", Server, authority, func(c *config.Config) { c.Token, c.Server = "short", "https://a:9345" }, ByFirstUse},
		{"first use, by a token without a hash", Server, authority, func(c *config.Config) { c.Token, c.Server = "K10::server:x", "https://a:9345" }, ByFirstUse},
		{"its own", Server, "", func(c *config.Config) { c.Token = "short" }, ByOwn},
		{"earlier", Server, "", func(c *config.Config) { c.Token, c.Server = "short", "https://a:9345" }, ByEarlier},
		{"agent, bootstrap token with a hash", Agent, "", func(c *config.Config) { c.Token = config.Secret("K10" + authority + "::abcdef.0123456789abcdef") }, ByToken},
		{"agent, bootstrap token", Agent, authority, func(c *config.Config) { c.Token, c.Server = "abcdef.0123456789abcdef", "https://a:9345" }, ByFirstUse},
		{"agent, earlier", Agent, "", func(c *config.Config) { c.Token, c.Server = "x", "https://a:9345" }, ByEarlier},
		{"settings that cannot be read", Agent, "", nil, ""},
		{"settings that cannot be read, first use", Agent, authority, nil, ByFirstUse},
	} {
		folder := filepath.Join(dir, x.role, "etc")
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
		}
		if x.pin != "" {
			put(t, folder, map[string]string{trust.PinName: x.pin + "\n"})
		}
		f := Files{DataDir: dir, Role: x.role}
		if x.change != nil {
			f.Settings = settings(dir, x.change)
		}
		if got := f.Report(noon()).Trust; got != (Trust{authority, x.want}) {
			t.Errorf("%s: got %+v, want %s", x.name, got, x.want)
		}
	}
}

func TestFilesOfAgent(t *testing.T) {
	dir := t.TempDir()
	pin := strings.Repeat("0c", 32)
	put(t, dir, map[string]string{"agent/etc/" + trust.PinName: pin + "\n"})
	r := Files{DataDir: dir, Settings: settings(dir, func(c *config.Config) { c.NodeName, c.Server = "w-1", "https://a:9345" })}.Report(noon())
	if r.Role != Agent || r.Node != "w-1" || r.Join != "https://a:9345" || r.Trust != (Trust{pin, ByFirstUse}) || r.Parts != nil {
		t.Errorf("got %+v", r)
	}
}

// TestFilesTellProblems: one file that cannot be read hides nothing of the others.
func TestFilesTellProblems(t *testing.T) {
	dir, authority := serverFiles(t)
	put(t, dir, map[string]string{
		"server/etc/" + trust.PinName:     "nonsense",
		"agent/serving-kubelet.crt":       "no certificate",
		"server/db/reset-epoch":           "{}",
		"server/db/etcd/member/wal/0.wal": "no log",
	})
	r := Files{DataDir: dir, Settings: settings(dir, nil), Idle: true}.Report(noon())
	all := strings.Join(r.Problems, "\n")
	for _, part := range []string{trust.PinName, "serving-kubelet.crt", "reset epoch"} {
		if !strings.Contains(all, part) {
			t.Errorf("%q is not in\n%s", part, all)
		}
	}
	if r.Trust.Authority != authority || r.Node != "cp-1" || r.Role != Server {
		t.Errorf("got %+v", r)
	}
}
