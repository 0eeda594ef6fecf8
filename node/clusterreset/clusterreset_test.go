package clusterreset

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/etcdstore"
	"keelson/node/etcd"
	"keelson/node/etcdsnapshot"
	"keelson/node/etcdsnapshot/etcdtest"
	"keelson/node/token"
)

const password = token.Secret("the server password")

// lost is what a cluster of three leaves: the data folder of its first server, and a snapshot that was taken of it.
type lost struct {
	dataDir, snapshots string
	cluster            uint64
}

// newLost runs three members, writes what a cluster holds, takes a snapshot, writes one key more and ends all three.
func newLost(t *testing.T) lost {
	t.Helper()
	segment := wal.SegmentSizeBytes
	wal.SegmentSizeBytes = 1 << 20 // 64 MiB a member otherwise, which every case copies
	t.Cleanup(func() { wal.SegmentSizeBytes = segment })
	l := lost{dataDir: t.TempDir(), snapshots: t.TempDir()}
	server := filepath.Join(l.dataDir, "server")
	for path, content := range map[string]string{
		"tls/server-ca.crt": "the cluster's CA", "tls/etcd/server-ca.crt": "etcd's CA", "cred/ipsec.psk": "psk",
		"cred/passwd": "x,server,server,rke2:server", "db/etcd/name": "m1", "../agent/etc/rke2-agent-load-balancer.json": "{}",
	} {
		put(t, filepath.Join(server, path), content)
	}
	ctx := context.Background()
	members := etcdtest.Start(t, 3, func(i int, c *embed.Config) {
		if i == 0 {
			c.Dir = etcd.Dir(l.dataDir)
		}
	})
	client := members[0].Client
	write := func(key, value string) int64 {
		r, err := client.Put(ctx, key, value)
		if err != nil {
			t.Fatal(err)
		}
		l.cluster = r.Header.ClusterId
		return r.Header.Revision
	}
	if _, err := bootstrapdata.Sync(ctx, etcdstore.New(client), password, server); err != nil {
		t.Fatal(err)
	}
	write(keyAPIAddresses, `["10.0.0.1:6443"]`)
	write(keyLearnerProgress, "{}")
	before := write("/registry/before", "1")
	// A read through the member itself: it has then applied what it snapshots.
	if _, err := client.Get(ctx, "/registry/before", clientv3.WithRev(before)); err != nil {
		t.Fatal(err)
	}
	m, err := etcdsnapshot.New(etcdsnapshot.Config{Etcd: client, Endpoint: members[0].Endpoint, NodeName: "cp-1", Dir: l.snapshots, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, compress := range []bool{false, true} {
		if _, err := m.Save(ctx, etcdsnapshot.Options{Prefix: "s", Compress: compress}); err != nil {
			t.Fatal(err)
		}
	}
	write("/registry/after", "1")
	if _, err := client.Get(ctx, "/registry/after"); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		m.Stop()
	}
	return l
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// snapshot names the plain or the zipped one.
func (l lost) snapshot(t *testing.T, zip bool) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(l.snapshots, "s-cp-1-*"))
	if err != nil || len(found) != 2 {
		t.Fatalf("snapshots: %v, %v", found, err)
	}
	for _, path := range found {
		if strings.HasSuffix(path, ".zip") == zip {
			return path
		}
	}
	t.Fatal("not found")
	return ""
}

// params of a reset of a copy of the data.
func (l lost) params(t *testing.T) Params {
	t.Helper()
	dir := t.TempDir()
	if err := copyTree(l.dataDir, dir); err != nil {
		t.Fatal(err)
	}
	return Params{DataDir: dir, NodeName: "cp-1", Address: "127.0.0.1", SnapshotDir: l.snapshots, Password: password,
		Now: time.Unix(1_800_000_000, 0), Log: slog.New(slog.DiscardHandler)}
}

// check starts the new data as a member and looks at what it holds.
func check(t *testing.T, l lost, p Params, wantAfter bool) {
	t.Helper()
	name, err := os.ReadFile(filepath.Join(etcd.Dir(p.DataDir), "name"))
	if err != nil || !strings.HasPrefix(string(name), "cp-1-") {
		t.Fatalf("name %q, %v", name, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err = serve(ctx, etcd.Dir(p.DataDir), false, func(ctx context.Context, c *clientv3.Client) error {
		members, err := c.MemberList(ctx)
		if err != nil {
			return err
		}
		if len(members.Members) != 1 || members.Members[0].PeerURLs[0] != "https://127.0.0.1:2380" {
			t.Errorf("members: %v", members.Members)
		}
		if members.Header.ClusterId == l.cluster {
			t.Error("the new cluster has the old one's identity")
		}
		all, err := c.Get(ctx, "", clientv3.WithPrefix())
		if err != nil {
			return err
		}
		got := map[string]string{}
		for _, kv := range all.Kvs {
			got[string(kv.Key)] = string(kv.Value)
		}
		_, after := got["/registry/after"]
		if got["/registry/before"] != "1" || after != wantAfter {
			t.Errorf("keys: %v; want /registry/before, and /registry/after: %v", got, wantAfter)
		}
		if got[keyAPIAddresses] != "" || got[keyLearnerProgress] != "" {
			t.Errorf("what tells of servers that are gone stays: %v", got)
		}
		if all.Header.Revision < revisionBump {
			t.Errorf("revision %d", all.Header.Revision)
		}
		info, err := Describe(ctx, c)
		if err != nil || info.Cluster != fmt.Sprintf("%x", all.Header.ClusterId) {
			t.Errorf("Describe: %+v, %v", info, err)
		}
		file, err := LoadEpoch(p.DataDir)
		if err != nil || file != info.Epoch || file.Number < p.Now.Unix() {
			t.Errorf("epoch: file %+v (%v), etcd %+v", file, err, info.Epoch)
		}
		if adopted, err := Adopt(ctx, c, p.DataDir); err != nil || adopted != file {
			t.Errorf("Adopt: %+v, %v", adopted, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	old, err := filepath.Glob(filepath.Join(p.DataDir, "server/db/etcd-old-*"))
	if err != nil || len(old) != 1 {
		t.Errorf("old data: %v, %v; want it kept once", old, err)
	} else if name, _ := os.ReadFile(filepath.Join(old[0], "name")); string(name) != "m1" {
		t.Errorf("the old data is %q's", name)
	}
	if _, err := os.Stat(workPath(p.DataDir)); !os.IsNotExist(err) {
		t.Errorf("work folder: %v", err)
	}
	if stale, _ := filepath.Glob(filepath.Join(p.DataDir, "agent/etc/*.json")); len(stale) != 0 {
		t.Errorf("load balancer state stays: %v", stale)
	}
}

func steps() []string {
	return []string{"snapshot", "restored", "renewed", "flag", "exchanged", "old data", "files", "epoch", "done"}
}

func TestResetWithPowerCuts(t *testing.T) {
	l := newLost(t)
	ctx := context.Background()

	// The power goes after each step in turn, and the reset is made again.
	for _, c := range []struct {
		name    string
		restore string
		cuts    []string
	}{
		{"own data", "", []string{"snapshot", "flag", "exchanged", "done"}},
		{"plain snapshot", l.snapshot(t, false), steps()},
		{"zipped snapshot by name", filepath.Base(l.snapshot(t, true)), []string{"none"}},
	} {
		for _, cut := range c.cuts {
			t.Run(c.name+" cut after "+cut, func(t *testing.T) {
				t.Parallel()
				p := l.params(t)
				p.Restore = c.restore
				put(t, filepath.Join(p.DataDir, "server/tls/leaf.crt"), "a leaf")
				p.after = func(step string) error {
					if step == cut {
						return errCut
					}
					return nil
				}
				if _, err := Run(ctx, p); (cut != "none") != errors.Is(err, errCut) {
					t.Fatalf("first run: %v", err)
				}
				interrupted, err := Interrupted(p.DataDir)
				if err != nil {
					t.Fatal(err)
				}
				if want := cut == "exchanged" || cut == "old data" || cut == "files" || cut == "epoch"; interrupted != want {
					t.Errorf("interrupted: %v, want %v", interrupted, want)
				}
				p.after = nil
				got, err := Run(ctx, p)
				if err != nil {
					t.Fatal(err)
				}
				if want := cut == "done" || cut == "none"; (got == Already) != want {
					t.Errorf("second run: outcome %v", got)
				}
				check(t, l, p, c.restore == "")
				if got, err := Run(ctx, p); err != nil || got != Already {
					t.Errorf("third run: %v, %v; want Already", got, err)
				}
				ca, err := os.ReadFile(filepath.Join(p.DataDir, "server/tls/server-ca.crt"))
				if err != nil || string(ca) != "the cluster's CA" {
					t.Errorf("CA: %q, %v", ca, err)
				}
				// A restore gives this server the certificates of the restored cluster, and keeps its own aside.
				_, err = os.Stat(filepath.Join(p.DataDir, "server/tls-old-1800000000/leaf.crt"))
				if (err == nil) != (c.restore != "") {
					t.Errorf("old certificates: %v", err)
				}
			})
		}
	}

	t.Run("another reset later", func(t *testing.T) {
		p := l.params(t)
		if _, err := Run(ctx, p); err != nil {
			t.Fatal(err)
		}
		first, err := LoadEpoch(p.DataDir)
		if err != nil {
			t.Fatal(err)
		}
		p.Restore, p.Now = l.snapshot(t, true), time.Unix(1000, 0) // with a clock that is off
		if got, err := Run(ctx, p); err != nil || got != Done {
			t.Fatalf("got %v, %v", got, err)
		}
		second, err := LoadEpoch(p.DataDir)
		if err != nil || second.Number != first.Number+1 || second.ID == first.ID {
			t.Errorf("epochs %+v, %+v, %v", first, second, err)
		}
	})

	t.Run("empty disk", func(t *testing.T) {
		p := l.params(t)
		p.DataDir, p.Restore = t.TempDir(), "fetched"
		p.Fetch = func(_ context.Context, name, path string) error {
			data, err := os.ReadFile(l.snapshot(t, true))
			if err != nil || name != "fetched" {
				return fmt.Errorf("fetch %s: %w", name, err)
			}
			return os.WriteFile(path, data, 0o600)
		}
		if _, err := Run(ctx, p); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]string{"tls/server-ca.crt": "the cluster's CA", "cred/ipsec.psk": "psk", "cred/passwd": "x,server,server,rke2:server"} {
			if got, err := os.ReadFile(filepath.Join(p.DataDir, "server", path)); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", path, got, err)
			}
		}
		if has, err := etcd.HasData(p.DataDir); err != nil || !has {
			t.Errorf("no data: %v", err)
		}
	})

	t.Run("refused", func(t *testing.T) {
		broken := filepath.Join(t.TempDir(), "broken")
		data, err := os.ReadFile(l.snapshot(t, false))
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		put(t, broken, string(data))
		for name, c := range map[string]struct {
			change func(*Params)
			says   string
		}{
			"damaged snapshot":     {func(p *Params) { p.Restore = broken }, "checksum"},
			"no snapshot":          {func(p *Params) { p.Restore = "/no/such/file" }, "cluster-reset-restore-path"},
			"no name":              {func(p *Params) { p.Restore = "../../etc/passwd" }, "cluster-reset-restore-path"},
			"neither here nor far": {func(p *Params) { p.Restore = "gone" }, "etcd-s3"},
			"object store":         {func(p *Params) { p.Restore, p.Fetch = "gone", failing }, "bucket"},
			"other token":          {func(p *Params) { p.Restore, p.Password = l.snapshot(t, false), "another" }, "token"},
			"empty disk, no path":  {func(p *Params) { p.DataDir = t.TempDir() }, "cluster-reset-restore-path"},
		} {
			p := l.params(t)
			c.change(&p)
			before, _ := os.ReadFile(filepath.Join(etcd.Dir(p.DataDir), "name"))
			if _, err := Run(ctx, p); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: got %v, want an error with %q", name, err, c.says)
			}
			after, _ := os.ReadFile(filepath.Join(etcd.Dir(p.DataDir), "name"))
			if string(before) != string(after) {
				t.Errorf("%s: the data changed", name)
			}
			if _, err := os.Stat(workPath(p.DataDir)); !os.IsNotExist(err) {
				t.Errorf("%s: the work folder stays: %v", name, err)
			}
			if f, err := loadFlag(p.DataDir); f != nil || err != nil {
				t.Errorf("%s: flag %+v, %v", name, f, err)
			}
		}
	})

	// What the second server of the old cluster does when it comes back: its own data, the reset cluster's answer.
	t.Run("others rejoin", func(t *testing.T) {
		p, second := l.params(t), l.params(t)
		own, err := etcd.ReadIdentity(second.DataDir)
		if err != nil || own.Cluster != l.cluster {
			t.Fatalf("identity %+v, %v", own, err)
		}
		if _, err := Run(ctx, p); err != nil {
			t.Fatal(err)
		}
		var info Info
		err = serve(ctx, etcd.Dir(p.DataDir), false, func(ctx context.Context, c *clientv3.Client) error {
			info, err = Describe(ctx, c)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		before, err := LoadEpoch(second.DataDir)
		if err != nil {
			t.Fatal(err)
		}
		if got, why := Decide(Local{Cluster: own.Cluster, Epoch: before}, Remote{Proven: true, Info: info}); got != Rejoin {
			t.Fatalf("verdict %v: %s", got, why)
		}
	})

	t.Run("etcd runs", func(t *testing.T) {
		p := l.params(t)
		err := serve(ctx, etcd.Dir(p.DataDir), true, func(context.Context, *clientv3.Client) error {
			if _, err := Run(ctx, p); !errors.Is(err, ErrRunning) {
				t.Errorf("got %v, want ErrRunning", err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func failing(context.Context, string, string) error { return errors.New("no such bucket") }

func TestFlagOfOthers(t *testing.T) {
	dir := t.TempDir()
	if f, err := loadFlag(dir); f != nil || err != nil {
		t.Errorf("without one: %+v, %v", f, err)
	}
	put(t, flagPath(dir), "")
	if f, err := loadFlag(dir); err != nil || !f.Done {
		t.Errorf("RKE2's: %+v, %v", f, err)
	}
	put(t, flagPath(dir), "{")
	if _, err := loadFlag(dir); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("broken: %v", err)
	}
}
