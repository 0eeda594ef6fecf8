package server

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/etcdstore"
	"keelson/node/clusterreset"
	"keelson/node/config"
	"keelson/node/etcd"
	"keelson/node/etcdsnapshot/etcdtest"
	"keelson/node/member"
	"keelson/node/supervisorapi"
	"keelson/node/token"
)

// epoch is the number of the cluster's life after a reset.
const epoch = 1_800_000_000

// withData gives a server the data of a member that has ended, and returns its cluster. The cluster's record is there.
func withData(t *testing.T, s *Server) uint64 {
	t.Helper()
	segment := wal.SegmentSizeBytes
	wal.SegmentSizeBytes = 1 << 20
	t.Cleanup(func() { wal.SegmentSizeBytes = segment })
	members := etcdtest.Start(t, 1, func(_ int, c *embed.Config) { c.Dir = etcd.Dir(s.settings.DataDir) })
	if _, err := bootstrapdata.Sync(t.Context(), etcdstore.New(members[0].Client), token.Secret(clusterToken), s.server()); err != nil {
		t.Fatal(err)
	}
	members[0].Stop()
	id, err := etcd.ReadIdentity(s.settings.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	return id.Cluster
}

// voterOf is what /db/info says of one voting member.
func voterOf(url string) []map[string]any {
	return []map[string]any{{"ID": 7, "name": "cp-1-abc", "clientURLs": []string{url}}}
}

// resetServer is a server of a cluster that says of itself what info says.
func resetServer(t *testing.T, info clusterreset.Info) (*Server, string) {
	t.Helper()
	s := newServer(t, func(c *config.Config) { c.Token = clusterToken })
	prepare(t, s)
	return s, serveHandlers(t, s, func(h *supervisorapi.Handlers) {
		h.Members = func(context.Context) (any, error) { return voterOf("https://10.0.2.15:2379"), nil }
		h.Cluster = func(context.Context) (any, error) { return info, nil }
	})
}

// member2 is a server that was a member of the first one's cluster, with data and all secrets.
func member2(t *testing.T, url string) (*Server, uint64) {
	t.Helper()
	s := joiner(t, url, nil)
	if err := s.joinCluster(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, withData(t, s)
}

func said(s *Server) string { return s.cfg.Console.(*bytes.Buffer).String() }

func TestServerFollowsAResetThatItWasNotIn(t *testing.T) {
	info := clusterreset.Info{Cluster: "c1d2", Epoch: clusterreset.Epoch{Number: epoch, ID: strings.Repeat("a", 32)}}
	first, url := resetServer(t, info)
	second, _ := member2(t, url)
	// It has followed a later record than the one that came back, and has another key.
	for path, content := range map[string]string{
		"cred/.bootstrap-agreed.json":   `{"Generation":9,"Files":{}}`,
		"cred/encryption-config.json":   `{"kind":"EncryptionConfiguration"}`,
		"db/etcd/member/of-the-old-one": "",
	} {
		if err := os.WriteFile(second.server(path), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []func(context.Context) error{second.settleReset, second.joinCluster, second.loadImages, second.ensureSecrets, second.ensureCertificates} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if exists, err := second.clusterExists(); exists || err != nil {
		t.Errorf("the old data is still in place: %v", err)
	}
	if kept, _ := filepath.Glob(second.server("db/etcd-old-*/member/of-the-old-one")); len(kept) != 1 {
		t.Errorf("the old data is not kept: %v", kept)
	}
	if voters, err := member.ToJoin(second.settings.DataDir); err != nil || !slices.Equal(voters, []string{"https://10.0.2.15:2379"}) {
		t.Errorf("to join: %v, %v", voters, err)
	}
	want, _ := os.ReadFile(first.server("cred/encryption-config.json"))
	if got, err := os.ReadFile(second.server("cred/encryption-config.json")); err != nil || !bytes.Equal(got, want) || len(want) == 0 {
		t.Errorf("the key is not the cluster's: %v", err)
	}
	if !strings.Contains(said(second), "the cluster was reset (epoch 1800000000) without this server") {
		t.Errorf("the console does not tell: %s", said(second))
	}
}

func TestServerKeepsItsData(t *testing.T) {
	for _, c := range []struct {
		name    string
		info    func(cluster uint64) clusterreset.Info
		own     int64 // epoch
		wantErr string
	}{
		{name: "same cluster", info: func(own uint64) clusterreset.Info {
			return clusterreset.Info{Cluster: strconv.FormatUint(own, 16)}
		}},
		{name: "another without a reset", info: func(uint64) clusterreset.Info { return clusterreset.Info{Cluster: "c1d2"} }},
		{name: "before this one's reset", own: epoch + 1, info: func(uint64) clusterreset.Info {
			return clusterreset.Info{Cluster: "c1d2", Epoch: clusterreset.Epoch{Number: epoch, ID: strings.Repeat("a", 32)}}
		}},
		{name: "two resets at once", own: epoch, wantErr: "neither knows of the other", info: func(uint64) clusterreset.Info {
			return clusterreset.Info{Cluster: "c1d2", Epoch: clusterreset.Epoch{Number: epoch, ID: strings.Repeat("a", 32)}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var info clusterreset.Info
			first := newServer(t, func(c *config.Config) { c.Token = clusterToken })
			prepare(t, first)
			url := serveHandlers(t, first, func(h *supervisorapi.Handlers) {
				h.Members = func(context.Context) (any, error) { return voterOf("https://10.0.2.15:2379"), nil }
				h.Cluster = func(context.Context) (any, error) { return info, nil }
			})
			second, own := member2(t, url)
			info = c.info(own)
			if c.own != 0 {
				content := `{"number":` + strconv.FormatInt(c.own, 10) + `,"id":"` + strings.Repeat("b", 32) + `"}`
				if err := os.WriteFile(second.server("db/reset-epoch"), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := second.settleReset(t.Context())
			if got := errorText(err); c.wantErr == "" && err != nil || !strings.Contains(got, c.wantErr) {
				t.Errorf("got %q, want %q", got, c.wantErr)
			}
			if exists, err := second.clusterExists(); !exists || err != nil {
				t.Errorf("the data is gone: %v", err)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestServerStartsWhereNobodyIsHeard(t *testing.T) {
	_, url := firstServer(t)
	second, _ := member2(t, url)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	second.settings.Server = "https://" + l.Addr().String() // nobody's, from here on
	l.Close()
	if err := second.settleReset(t.Context()); err != nil {
		t.Error(err)
	}
	if exists, _ := second.clusterExists(); !exists {
		t.Error("the data is gone")
	}
}

func TestResetBySettings(t *testing.T) {
	s := newServer(t, func(c *config.Config) { c.Token = clusterToken })
	prepare(t, s)
	before := withData(t, s)
	s.settings.ClusterReset = true
	for _, want := range []string{"the cluster is reset to this server", "has been reset to this server before"} {
		if err := s.settleReset(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(said(s), want) {
			t.Errorf("the console does not say %q: %s", want, said(s))
		}
	}
	id, err := etcd.ReadIdentity(s.settings.DataDir)
	if err != nil || id.Cluster == before {
		t.Errorf("got cluster %x, %v; want another than %x", id.Cluster, err, before)
	}
	if e, err := clusterreset.LoadEpoch(s.settings.DataDir); err != nil || e.Number == 0 {
		t.Errorf("got epoch %+v, %v", e, err)
	}
	// It starts from there as the only member.
	if err := s.startMember(t.Context()); err != nil || !s.member.Alone || s.learner {
		t.Errorf("got %+v, %v; want the only member", s.member, err)
	}
}

// The settings may hold the token of before a rotation, or none at all.
func TestResetTriesEveryTokenThatItKnows(t *testing.T) {
	for _, c := range []struct {
		name, token string
		want        error
	}{
		{"none in the settings", "", nil},
		{"an earlier one in the settings", "an-earlier-token", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t, func(c *config.Config) { c.Token = clusterToken })
			prepare(t, s)
			withData(t, s)
			s.settings.ClusterReset, s.settings.Token = true, config.Secret(c.token)
			if err := s.settleReset(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestResetThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Server)
		want   string
	}{
		{"no data", func(s *Server) { s.settings.Token = clusterToken }, "name a snapshot with cluster-reset-restore-path"},
		{"no token", func(*Server) {}, "set token to the one that was valid when the snapshot was taken"},
		{"no snapshot", func(s *Server) {
			s.settings.Token, s.settings.ClusterResetRestorePath = clusterToken, "s-cp-1-1800000000"
		}, "set etcd-s3"},
		{"no bucket", func(s *Server) {
			s.settings.Token, s.settings.ClusterResetRestorePath, s.settings.S3.Enabled = clusterToken, "s-cp-1-1800000000", true
		}, "etcd-s3-bucket"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t, nil)
			if err := s.makeFolders(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.settings.ClusterReset = true
			c.change(s)
			if err := s.settleReset(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestSupervisorsToHear(t *testing.T) {
	s := newServer(t, func(c *config.Config) { c.Server, c.Token = "https://lb.example:9345", clusterToken })
	s.settings.NodeIP = []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}
	got := s.supervisors([]string{"https://10.0.0.1:2379", "https://10.0.0.2:2379", "https://[fd00::3]:2379", "https://[fd00::2]:2379", "", "::"})
	want := []string{"https://lb.example:9345", "https://10.0.0.1:9345", "https://[fd00::3]:9345"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := s.supervisors([]string{"https://10.0.0.2:2379", "https://10.0.0.3:2379"}); !slices.Equal(got, []string{"https://lb.example:9345", "https://10.0.0.3:9345"}) {
		t.Errorf("to join: got %v", got)
	}
	s.settings.ServerAlternatives = []string{"https://10.0.0.2:9345", "https://lb.example:9345", "https://10.0.0.1:9345"} // a list for all servers
	if got := s.supervisors([]string{"https://10.0.0.1:2379"}); !slices.Equal(got, []string{"https://lb.example:9345", "https://10.0.0.1:9345"}) {
		t.Errorf("with alternatives: got %v", got)
	}
}
