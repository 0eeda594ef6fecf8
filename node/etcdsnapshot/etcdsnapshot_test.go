package etcdsnapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keelson/node/etcdsnapshot/etcdtest"
)

func start(t *testing.T) *etcdtest.Member {
	t.Helper()
	member := etcdtest.Start(t, 1, nil)[0]
	for i := range 50 {
		if _, err := member.Client.Put(context.Background(), fmt.Sprint("/registry/key-", i), strings.Repeat("x", 500)); err != nil {
			t.Fatal(err)
		}
	}
	return member
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// One member serves every test that needs the real thing: etcd's start is most of the time.
func TestAgainstRealEtcd(t *testing.T) {
	member := start(t)
	manager := func(t *testing.T, change func(*Config)) *Manager {
		return newManager(t, member.Client, member.Endpoint, change)
	}
	ctx := context.Background()

	t.Run("plain", func(t *testing.T) {
		records := &recorder{}
		m := manager(t, func(c *Config) {
			c.Records = records
			c.Extra = func(context.Context) (map[string]string, error) { return map[string]string{"site": "north"}, nil }
		})
		before := time.Now().Unix()
		got, err := m.Save(ctx, Options{Prefix: OnDemandPrefix})
		if err != nil {
			t.Fatal(err)
		}
		names := list(t, m.Dir)
		if !slices.Equal(names, got.Created) || len(names) != 1 {
			t.Fatalf("folder has %v, the result says %v: want one and the same", names, got.Created)
		}
		n, ok := ParseName(names[0], "cp-1")
		if !ok || n.Prefix != OnDemandPrefix || n.Unix < before || n.Zip {
			t.Errorf("name %q: %+v", names[0], n)
		}
		info, err := Verify(filepath.Join(m.Dir, names[0]))
		if err != nil || info.Revision < 51 {
			t.Errorf("Verify: %+v, %v; want revision 51 or later", info, err)
		}
		stat, err := os.Stat(filepath.Join(m.Dir, names[0]))
		if err != nil || stat.Mode().Perm() != 0o600 {
			t.Errorf("mode: %v, %v", stat.Mode(), err)
		}
		if len(records.local) != 1 || records.local[0].Metadata["site"] != "north" || records.local[0].TokenHash != "0123456789ab" || records.local[0].Size != stat.Size() {
			t.Errorf("records got %+v", records.local)
		}
	})

	t.Run("compressed", func(t *testing.T) {
		m := manager(t, nil)
		got, err := m.Save(ctx, Options{Prefix: "etcd-snapshot", Compress: true})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(m.Dir, got.Created[0])
		if !strings.HasSuffix(path, ".zip") || !IsZip(path) {
			t.Errorf("%s is no zip file", path)
		}
		if names := list(t, m.Dir); len(names) != 1 {
			t.Errorf("temporary files stay: %v", names)
		}
		plain := filepath.Join(t.TempDir(), "plain")
		if info, err := Unpack(path, plain); err != nil || info.Revision < 51 {
			t.Errorf("Unpack: %+v, %v", info, err)
		}
	})

	t.Run("damaged", func(t *testing.T) {
		m := manager(t, nil)
		got, err := m.Save(ctx, Options{Prefix: "x", Compress: true})
		if err != nil {
			t.Fatal(err)
		}
		plain := filepath.Join(t.TempDir(), "plain")
		if _, err := Unpack(filepath.Join(m.Dir, got.Created[0]), plain); err != nil {
			t.Fatal(err)
		}
		whole, err := os.ReadFile(plain)
		if err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func([]byte) []byte{
			"a flipped byte":     func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
			"a flipped checksum": func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
			"cut off":            func(b []byte) []byte { return b[:len(b)-4096] },
			"without trailer":    func(b []byte) []byte { return b[:len(b)-32] },
			"empty":              func([]byte) []byte { return nil },
		} {
			path := filepath.Join(t.TempDir(), "broken")
			if err := os.WriteFile(path, change(slices.Clone(whole)), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Verify(path); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: got %v, want ErrDamaged", name, err)
			}
		}
		zipped, err := os.ReadFile(filepath.Join(m.Dir, got.Created[0]))
		if err != nil {
			t.Fatal(err)
		}
		zipped[len(zipped)/2] ^= 0x55
		broken := filepath.Join(t.TempDir(), "broken.zip")
		if err := os.WriteFile(broken, zipped, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Unpack(broken, plain); err == nil {
			t.Error("a zip file with a flipped byte was unpacked")
		}
	})

	t.Run("damaged on its way", func(t *testing.T) {
		records := &recorder{}
		m := newManager(t, flipping{member.Client}, member.Endpoint, func(c *Config) { c.Records = records })
		_, err := m.Save(ctx, Options{Prefix: "x"})
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("got %v, want ErrDamaged", err)
		}
		if names := list(t, m.Dir); len(names) != 0 {
			t.Errorf("a damaged snapshot stays: %v", names)
		}
		if len(records.local) != 1 || !strings.Contains(records.local[0].Failure, "checksum") {
			t.Errorf("the failure is not recorded: %+v", records.local)
		}
	})

	t.Run("object store", func(t *testing.T) {
		s := &shelf{keep: 1}
		records := &recorder{}
		m := manager(t, func(c *Config) {
			c.S3 = &S3Config{Bucket: "backups"}
			c.Connect = func(context.Context, S3Config) (Remote, error) { return s, nil }
			c.Records = records
		})
		at := time.Unix(1700000000, 0)
		m.now = func() time.Time { at = at.Add(time.Hour); return at }
		s.files = []File{{Name: "etcd-snapshot-cp-2-1600000000", Node: "cp-2"}, {Name: "etcd-snapshot-cp-1-1600000000", Node: "cp-1"}}
		got, err := m.Save(ctx, Options{Prefix: "etcd-snapshot", Retention: 5, S3: m.S3})
		if err != nil {
			t.Fatal(err)
		}
		if len(s.files) != 2 || s.files[0].Node != "cp-2" || s.files[1].Name != got.Created[0] {
			t.Errorf("object store holds %+v, want the other server's and the new one", s.files)
		}
		if records.remote == nil || len(records.remote.Files) != 2 {
			t.Errorf("records got %+v", records.remote)
		}
		if last := m.Last(); last.Name != got.Created[0] || last.Error != "" || last.Remote != "s3://backups/c1/"+last.Name || last.At.IsZero() {
			t.Errorf("last: got %+v", last)
		}
		s.refuses = errors.New("no such bucket")
		got, err = m.Save(ctx, Options{Prefix: "etcd-snapshot", Retention: 5, S3: m.S3})
		if !errors.Is(err, s.refuses) || len(got.Created) != 1 {
			t.Errorf("a refused upload: got %+v, %v; want the local snapshot and the error", got, err)
		}
		last := records.remote.Files[len(records.remote.Files)-1]
		if last.Failure == "" || last.S3 == nil || !strings.HasPrefix(last.Location, "s3://backups/c1/") {
			t.Errorf("the failed upload is recorded as %+v", last)
		}
		if last := m.Last(); last.Name != got.Created[0] || last.Remote != "" || !strings.Contains(last.Error, "no such bucket") {
			t.Errorf("last, after a refused upload: got %+v", last)
		}
	})

	t.Run("retention", func(t *testing.T) {
		m := manager(t, nil)
		at := time.Unix(1700000000, 0)
		m.now = func() time.Time { at = at.Add(time.Second); return at }
		foreign := filepath.Join(m.Dir, "etcd-snapshot-cp-2-1600000000")
		if err := os.WriteFile(foreign, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		var last Result
		for range 3 {
			var err error
			if last, err = m.Save(ctx, Options{Prefix: "etcd-snapshot", Retention: 2}); err != nil {
				t.Fatal(err)
			}
		}
		if len(last.Deleted) != 1 || len(list(t, m.Dir)) != 3 {
			t.Errorf("deleted %v, left %v; want the oldest of ours gone", last.Deleted, list(t, m.Dir))
		}
		if _, err := os.Stat(filepath.Join(m.Metadata, last.Deleted[0])); !os.IsNotExist(err) {
			t.Errorf("metadata of a removed snapshot stays: %v", err)
		}
	})

	t.Run("one at a time", func(t *testing.T) {
		entered, leave := make(chan struct{}), make(chan struct{})
		m := newManager(t, blocking{member.Client, entered, leave}, member.Endpoint, nil)
		done := make(chan error, 1)
		go func() {
			_, err := m.Save(ctx, Options{Prefix: "x"})
			done <- err
		}()
		<-entered
		if _, err := m.Save(ctx, Options{Prefix: "y"}); !errors.Is(err, ErrBusy) {
			t.Errorf("got %v, want ErrBusy", err)
		}
		close(leave)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestNotOnLearners(t *testing.T) {
	records := &recorder{}
	m := newManager(t, still{learner: true}, "", func(c *Config) { c.Records = records })
	if _, err := m.Save(context.Background(), Options{Prefix: "x"}); !errors.Is(err, ErrLearner) {
		t.Errorf("got %v, want ErrLearner", err)
	}
	if len(records.local) != 0 {
		t.Errorf("being a learner is recorded as a failure: %+v", records.local)
	}
}

func TestSpaceIsLookedAtFirst(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name     string
		free     uint64
		compress bool
		enough   bool
	}{
		{"enough", 200 * mib, false, true},
		{"the reserve is missing", 130 * mib, false, false},
		{"both files fit", 300 * mib, true, true},
		{"only one fits", 200 * mib, true, false},
	} {
		m := newManager(t, still{size: 100 * mib}, "", nil)
		m.free = func(string) (uint64, error) { return c.free, nil }
		_, err := m.Save(context.Background(), Options{Prefix: "x", Compress: c.compress})
		if got := !errors.Is(err, ErrSpace); got != c.enough {
			t.Errorf("%s: got %v", c.name, err)
		}
		if !c.enough && !strings.Contains(err.Error(), "etcd-snapshot-retention") {
			t.Errorf("%s: the error does not say what to do: %v", c.name, err)
		}
	}
}

func TestMissingFolder(t *testing.T) {
	m := newManager(t, still{}, "", nil)
	if _, err := m.Save(context.Background(), Options{Prefix: "x", Dir: "/nowhere/at/all"}); err == nil || !strings.Contains(err.Error(), "must exist") {
		t.Errorf("got %v", err)
	}
	m.Dir = "/nowhere/at/all"
	if err := m.Prepare(false); err == nil || !strings.Contains(err.Error(), "etcd-snapshot-dir") {
		t.Errorf("got %v", err)
	}
}

func TestPrepareRemovesWhatAPowerCutLeft(t *testing.T) {
	m := newManager(t, still{}, "", nil)
	left := filepath.Join(m.Dir, ".etcd-snapshot-cp-1-1700000000.part.keelson-tmp")
	if err := os.WriteFile(left, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if files, err := m.local(m.Dir); err != nil || len(files) != 0 {
		t.Errorf("a part is listed: %v, %v", files, err)
	}
	if err := m.Prepare(true); err != nil {
		t.Fatal(err)
	}
	if names := list(t, m.Dir); len(names) != 0 {
		t.Errorf("got %v", names)
	}
}

// The schedule runs on synctest's clock: no test waits for twelve hours, or sleeps.
func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := &recorder{}
		counted := &counting{}
		m := newManager(t, counted, "", func(c *Config) { c.Schedule, c.Records = "0 */6 * * *", records })
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		time.Sleep(24*time.Hour + time.Minute)
		synctest.Wait()
		if counted.n != 4 {
			t.Errorf("%d snapshots in a day, want 4", counted.n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	good := Config{Etcd: still{}, NodeName: "n", Dir: "/d", Log: slog.New(slog.DiscardHandler)}
	for name, c := range map[string]struct {
		change func(*Config)
		says   string
	}{
		"schedule":     {func(c *Config) { c.Schedule = "every day" }, "etcd-snapshot-schedule-cron"},
		"name":         {func(c *Config) { c.Prefix = "../x" }, "etcd-snapshot-name"},
		"retention":    {func(c *Config) { c.Retention = -1 }, "etcd-snapshot-retention"},
		"relative dir": {func(c *Config) { c.Dir = "d" }, "absolute"},
		"no connect":   {func(c *Config) { c.S3 = &S3Config{} }, "Connect"},
	} {
		config := good
		c.change(&config)
		if _, err := New(config); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.says)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}

func TestFailuresAreRecordedOnceAndAgainWhenThatFailed(t *testing.T) {
	records := &recorder{err: errors.New("no kube-apiserver")}
	m := newManager(t, &counting{}, "", func(c *Config) { c.Records = records })
	if _, err := m.Save(context.Background(), Options{Prefix: "x"}); err == nil {
		t.Fatal("no error")
	}
	records.err = nil
	if err := m.reconcile(context.Background(), nil); err != nil || len(records.local) != 1 {
		t.Errorf("got %+v, %v; want the failure", records.local, err)
	}
	if err := m.reconcile(context.Background(), nil); err != nil || len(records.local) != 0 {
		t.Errorf("got %+v, %v; want it told once", records.local, err)
	}
}

func TestMetadataOfOthersIsPassedOver(t *testing.T) {
	m := newManager(t, still{}, "", nil)
	f := File{Name: "s", Metadata: map[string]string{"a": "b"}, TokenHash: "x"}
	if err := m.saveMetadata(f); err != nil {
		t.Fatal(err)
	}
	if got, hash := m.loadMetadata("s"); got["a"] != "b" || hash != "x" {
		t.Errorf("got %v %q", got, hash)
	}
	if err := os.WriteFile(filepath.Join(m.Metadata, "s"), []byte("not json"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _ := m.loadMetadata("s"); got != nil {
		t.Errorf("got %v", got)
	}
	if data, err := json.Marshal(ObjectOf(f)); err != nil || !strings.Contains(string(data), `"snapshotName":"s"`) {
		t.Errorf("%s, %v", data, err)
	}
}
