package succession

import (
	"errors"
	"maps"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/storetest"
	"keelson/node/pki"
)

func start() time.Time { return time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC) }

// cluster is a server's files, as they would stand in the record.
func cluster(t *testing.T) (dir string, data bootstrapdata.Data) {
	t.Helper()
	root := t.TempDir()
	dir = filepath.Join(root, "server")
	_, err := pki.Ensure(pki.Params{
		ServerDir: dir, AgentDir: filepath.Join(root, "agent"), NodeName: "cp-1", ClusterDomain: "cluster.local",
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Now: start(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if data, err = bootstrapdata.Collect(dir); err != nil {
		t.Fatal(err)
	}
	return dir, data
}

func made(t *testing.T, of bootstrapdata.Data) bootstrapdata.Data {
	t.Helper()
	next, err := Make(of, start().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func later() time.Time { return start().Add(2 * time.Hour) }

func TestMadeSetIsAccepted(t *testing.T) {
	_, current := cluster(t)
	current["PasswdFile"] = bootstrapdata.File{Content: []byte("kept")}
	next := made(t, current)
	record, err := Check(current, next, later(), false)
	if err != nil {
		t.Fatal(err)
	}
	if len(record) != len(current) || string(record["PasswdFile"].Content) != "kept" {
		t.Errorf("the record has %d entries, want the %d of before, the others unchanged", len(record), len(current))
	}
	for _, name := range authorities() {
		if string(record[name].Content) == string(current[name].Content) || string(record[name].Content) != string(next[name].Content) {
			t.Errorf("%s was not replaced", name)
		}
	}
	if _, err := Check(record, made(t, record), later().Add(time.Hour), false); err != nil {
		t.Errorf("a second succession: %v", err)
	}
}

func TestOneAuthorityAlone(t *testing.T) {
	_, current := cluster(t)
	next := made(t, current)
	one := bootstrapdata.Data{"ClientCA": next["ClientCA"], "ClientCAKey": next["ClientCAKey"], "ServerCA": {}}
	record, err := Check(current, one, later(), false)
	if err != nil {
		t.Fatal(err)
	}
	if string(record["ServerCA"].Content) != string(current["ServerCA"].Content) {
		t.Error("an empty entry replaced an authority")
	}
}

func TestRefused(t *testing.T) {
	_, current := cluster(t)
	_, foreign := cluster(t)
	next, other := made(t, current), made(t, foreign)
	with := func(change func(bootstrapdata.Data)) bootstrapdata.Data {
		d := maps.Clone(next)
		change(d)
		return d
	}
	for _, c := range []struct {
		name   string
		next   bootstrapdata.Data
		want   error
		says   string
		forced bool // passes with force
	}{
		{"nothing", nil, nil, "there are none", false},
		{"password file", with(func(d bootstrapdata.Data) { d["PasswdFile"] = bootstrapdata.File{Content: []byte("x")} }), nil, "PasswdFile cannot be replaced", false},
		{"encryption key", with(func(d bootstrapdata.Data) { d["EncryptionConfig"] = bootstrapdata.File{Content: []byte("x")} }), nil, "EncryptionConfig cannot", false},
		{"another cluster's", other, pki.ErrNotHeir, "tls/server-ca.crt: ", true},
		{"one of another cluster's", with(func(d bootstrapdata.Data) {
			d["ETCDPeerCA"], d["ETCDPeerCAKey"] = other["ETCDPeerCA"], other["ETCDPeerCAKey"]
		}), pki.ErrNotHeir, "tls/etcd/peer-ca.crt: ", true},
		{"key of another", with(func(d bootstrapdata.Data) { d["ServerCAKey"] = d["ClientCAKey"] }), pki.ErrPair, "tls/server-ca.crt: ", false},
		{"certificate without key", with(func(d bootstrapdata.Data) { delete(d, "ServerCAKey") }), pki.ErrPair, "tls/server-ca.crt: ", false},
		{"service keys lost", with(func(d bootstrapdata.Data) { d["ServiceKey"] = foreign["ServiceKey"] }), pki.ErrKeysLost, "tls/service.key: ", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Check(current, c.next, later(), false)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.says)
			}
			if _, err := Check(current, c.next, later(), true); (err == nil) != c.forced {
				t.Errorf("with force: got %v, want passed: %v", err, c.forced)
			}
		})
	}
	if _, err := Make(bootstrapdata.Data{}, start()); err == nil {
		t.Error("authorities were made for a cluster that has none")
	}
}

// The record moves on by one generation, a server that followed the one before follows it, and its leaves are issued anew.
func TestApplyReachesTheServers(t *testing.T) {
	dir, current := cluster(t)
	s := &storetest.Memory{}
	if _, err := bootstrapdata.Sync(t.Context(), s, "pass", dir); err != nil {
		t.Fatal(err)
	}
	plain, err := made(t, current).Encode()
	if err != nil {
		t.Fatal(err)
	}
	record, err := Apply(t.Context(), s, "pass", plain, later(), false)
	if err != nil {
		t.Fatal(err)
	}
	if record.Generation() != 2 {
		t.Errorf("got generation %d, want 2", record.Generation())
	}
	written, err := bootstrapdata.Sync(t.Context(), s, "pass", dir)
	if err != nil || len(written) != 2*len(authorities())+1 {
		t.Fatalf("the server wrote %v, %v", written, err)
	}
	r, err := pki.Ensure(pki.Params{
		ServerDir: dir, AgentDir: filepath.Join(filepath.Dir(dir), "agent"), NodeName: "cp-1", ClusterDomain: "cluster.local",
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Now: later(), ClusterExists: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range []string{"client-admin.crt", "serving-kube-apiserver.crt", "etcd/peer-server-client.crt", "service.current.key"} {
		found := false
		for _, path := range r.Written {
			found = found || path == filepath.Join(dir, "tls", leaf)
		}
		if !found {
			t.Errorf("%s was not issued anew", leaf)
		}
	}
	for name, plain := range map[string][]byte{"no JSON": []byte("x"), "refused": []byte(`{"PasswdFile":"eA=="}`)} {
		if _, err := Apply(t.Context(), s, "pass", plain, later(), true); err == nil {
			t.Errorf("%s: applied", name)
		}
	}
	if _, err := Apply(t.Context(), s, "other", plain, later(), false); !errors.Is(err, bootstrapdata.ErrOtherToken) {
		t.Errorf("under another token: got %v", err)
	}
}
