package bootstrapdata_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/storetest"
	"keelson/node/token"
)

const fullToken = token.Secret("K10aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa::server:pass")

// legacy puts a record under the key of passphrase, encrypted with opens, as an old server would.
func legacy(t *testing.T, s bootstrapdata.Store, passphrase, opens token.Secret, passwd string) {
	t.Helper()
	record, err := bootstrapdata.Collect(server(t))
	if err != nil {
		t.Fatal(err)
	}
	record["PasswdFile"] = bootstrapdata.File{Content: []byte(passwd)}
	plain, err := record.Encode()
	if err != nil {
		t.Fatal(err)
	}
	value, err := bootstrapdata.Encrypt(opens, plain)
	if err != nil {
		t.Fatal(err)
	}
	if done, err := s.Put(t.Context(), bootstrapdata.Key(passphrase), value, 0); err != nil || !done {
		t.Fatal(done, err)
	}
}

func passwdOf(p string) string {
	return p + ",node,node,rke2:agent\n" + p + ",server,server,rke2:server\n"
}

// bootstraps are all records of bootstrap data, with their values.
func bootstraps(t *testing.T, s bootstrapdata.Store) map[string]string {
	t.Helper()
	all, err := s.List(t.Context(), bootstrapdata.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, r := range all {
		out[r.Key] = r.Value
	}
	return out
}

// TestKeysOfOldRecords: the empty text's key is the one that old k3s used (printf ” | sha256sum).
func TestKeysOfOldRecords(t *testing.T) {
	if got := bootstrapdata.Key(""); got != "/bootstrap/e3b0c44298fc" {
		t.Errorf("got %s", got)
	}
}

func TestMigrate(t *testing.T) {
	for _, c := range []struct {
		name  string
		fill  func(*testing.T, *storetest.Memory)
		texts []token.Secret
	}{
		{"no token", func(t *testing.T, s *storetest.Memory) { legacy(t, s, "", "", passwdOf("pass")) }, nil},
		{"no token, no password file", func(t *testing.T, s *storetest.Memory) { legacy(t, s, "", "", "") }, nil},
		{"the whole token", func(t *testing.T, s *storetest.Memory) { legacy(t, s, fullToken, fullToken, passwdOf("pass")) }, []token.Secret{"pass", fullToken}},
		{"beside a lock", func(t *testing.T, s *storetest.Memory) {
			legacy(t, s, "", "", passwdOf("pass"))
			if _, err := s.Put(t.Context(), bootstrapdata.Key("pass"), "", 0); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"both, and the same", func(t *testing.T, s *storetest.Memory) {
			legacy(t, s, "", "", passwdOf("pass"))
			plain, err := bootstrapdata.Decrypt("", bootstraps(t, s)[bootstrapdata.Key("")])
			if err != nil {
				t.Fatal(err)
			}
			value, err := bootstrapdata.Encrypt(fullToken, plain)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Put(t.Context(), bootstrapdata.Key(fullToken), value, 0); err != nil {
				t.Fatal(err)
			}
		}, []token.Secret{fullToken}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &storetest.Memory{}
			c.fill(t, s)
			if moved, err := bootstrapdata.Migrate(t.Context(), s, "pass", c.texts...); err != nil || !moved {
				t.Fatalf("got %v, %v", moved, err)
			}
			have := bootstraps(t, s)
			if _, ok := have[bootstrapdata.Key("pass")]; !ok || len(have) != 1 {
				t.Errorf("the store holds %v", records(t, s))
			}
			d := load(t, s)
			if string(d["ServerCAKey"].Content) != "ServerCAKey" || d.Generation() != 1 {
				t.Errorf("got %q, generation %d", d["ServerCAKey"].Content, d.Generation())
			}
			if moved, err := bootstrapdata.Migrate(t.Context(), s, "pass", c.texts...); err != nil || moved {
				t.Errorf("again: got %v, %v", moved, err)
			}
			if got := bootstraps(t, s); fmt.Sprint(got) != fmt.Sprint(have) {
				t.Error("doing it again has changed the record")
			}
			if _, err := bootstrapdata.Sync(t.Context(), s, "pass", t.TempDir()); err != nil {
				t.Errorf("an empty server: %v", err)
			}
		})
	}
}

// TestMigrateLeavesAlone what is not surely ours: every record stays to the byte, and Load refuses as ever.
func TestMigrateLeavesAlone(t *testing.T) {
	for _, c := range []struct {
		name  string
		fill  func(*testing.T, *storetest.Memory)
		texts []token.Secret
		want  error
	}{
		{"nothing", func(*testing.T, *storetest.Memory) {}, nil, bootstrapdata.ErrNone},
		{"another token's record", func(t *testing.T, s *storetest.Memory) { legacy(t, s, "other", "other", passwdOf("other")) },
			[]token.Secret{"pass", fullToken}, bootstrapdata.ErrOtherToken},
		{"the empty key, and nothing opens it", func(t *testing.T, s *storetest.Memory) { legacy(t, s, "", "guess", passwdOf("pass")) }, nil, bootstrapdata.ErrOtherToken},
		{"the whole token's key, and it does not open it", func(t *testing.T, s *storetest.Memory) { legacy(t, s, fullToken, "pass", passwdOf("pass")) },
			[]token.Secret{fullToken}, bootstrapdata.ErrOtherToken},
		{"the empty key, of a cluster with another token", func(t *testing.T, s *storetest.Memory) { legacy(t, s, "", "", passwdOf("other")) }, nil, bootstrapdata.ErrOtherToken},
		{"a broken password file", func(t *testing.T, s *storetest.Memory) { legacy(t, s, "", "", "x\n") }, nil, bootstrapdata.ErrOtherToken},
		{"another cluster's whole token", func(t *testing.T, s *storetest.Memory) { legacy(t, s, "K10::server:other", "K10::server:other", "") },
			[]token.Secret{"K10::server:other"}, bootstrapdata.ErrOtherToken},
		{"a value that is no record", func(t *testing.T, s *storetest.Memory) {
			value, err := bootstrapdata.Encrypt("", []byte("text"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Put(t.Context(), bootstrapdata.Key(""), value, 0); err != nil {
				t.Fatal(err)
			}
		}, nil, bootstrapdata.ErrOtherToken},
		{"beside a record that nothing opens", func(t *testing.T, s *storetest.Memory) {
			legacy(t, s, "", "", passwdOf("pass"))
			legacy(t, s, "other", "other", passwdOf("other"))
		}, nil, bootstrapdata.ErrSeveral},
		{"two that differ", func(t *testing.T, s *storetest.Memory) {
			legacy(t, s, "", "", passwdOf("pass"))
			legacy(t, s, fullToken, fullToken, "pass,server,server,rke2:server\n")
		}, []token.Secret{fullToken}, bootstrapdata.ErrSeveral},
		{"beside a newer one", func(t *testing.T, s *storetest.Memory) {
			legacy(t, s, "", "", passwdOf("pass"))
			legacy(t, s, "pass", "pass", "pass,server,server,rke2:server\n")
		}, nil, bootstrapdata.ErrSeveral},
		{"beside one of ours that is broken", func(t *testing.T, s *storetest.Memory) {
			legacy(t, s, "", "", passwdOf("pass"))
			legacy(t, s, "pass", "guess", passwdOf("pass"))
		}, nil, bootstrapdata.ErrSeveral},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &storetest.Memory{}
			c.fill(t, s)
			before := bootstraps(t, s)
			if moved, err := bootstrapdata.Migrate(t.Context(), s, "pass", c.texts...); err != nil || moved {
				t.Errorf("got %v, %v", moved, err)
			}
			if after := bootstraps(t, s); fmt.Sprint(before) != fmt.Sprint(after) {
				t.Errorf("the store had %v, and has %v", before, after)
			}
			if _, err := bootstrapdata.Load(t.Context(), s, "pass"); !errors.Is(err, c.want) {
				t.Errorf("load: got %v, want %v", err, c.want)
			}
		})
	}
}

// TestCutMigration: an old server that was cut off after it wrote the new record, before it removed the old.
func TestCutMigration(t *testing.T) {
	s := &storetest.Memory{}
	legacy(t, s, "", "", passwdOf("pass"))
	value := bootstraps(t, s)[bootstrapdata.Key("")]
	plain, err := bootstrapdata.Decrypt("", value)
	if err != nil {
		t.Fatal(err)
	}
	if value, err = bootstrapdata.Encrypt("pass", plain); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), bootstrapdata.Key("pass"), value, 0); err != nil {
		t.Fatal(err)
	}
	if moved, err := bootstrapdata.Migrate(t.Context(), s, "pass"); err != nil || !moved {
		t.Fatalf("got %v, %v", moved, err)
	}
	if got := bootstraps(t, s); len(got) != 1 || got[bootstrapdata.Key("pass")] != value {
		t.Errorf("the store holds %v", records(t, s))
	}
}

// cutOff is a store whose next commit ends with the power: done or not, nobody is told.
type cutOff struct {
	*storetest.Memory
	applied bool
}

var errPower = errors.New("power cut")

func (c cutOff) Commit(ctx context.Context, expect, put []bootstrapdata.Record, remove []string) (bool, error) {
	if c.applied {
		if _, err := c.Memory.Commit(ctx, expect, put, remove); err != nil {
			return false, err
		}
	}
	return false, errPower
}

func TestPowerCutDuringMigration(t *testing.T) {
	for _, applied := range []bool{false, true} {
		t.Run(fmt.Sprintf("applied %v", applied), func(t *testing.T) {
			s := &storetest.Memory{}
			legacy(t, s, "", "", passwdOf("pass"))
			if _, err := bootstrapdata.Migrate(t.Context(), cutOff{s, applied}, "pass"); !errors.Is(err, errPower) {
				t.Fatalf("got %v", err)
			}
			if got := bootstraps(t, s); len(got) != 1 {
				t.Errorf("after the cut the store holds %v", records(t, s))
			}
			if moved, err := bootstrapdata.Migrate(t.Context(), s, "pass"); err != nil || moved == applied {
				t.Errorf("the next start: got %v, %v", moved, err)
			}
			if d := load(t, s); d.Generation() != 1 || string(d["ClientCA"].Content) != "ClientCA" {
				t.Errorf("got generation %d", d.Generation())
			}
		})
	}
}

// TestTwoServersMigrateAtOnce: one of them does it, the other finds it done; a faster third is never overwritten.
func TestTwoServersMigrateAtOnce(t *testing.T) {
	s := &storetest.Memory{}
	legacy(t, s, "", "", passwdOf("pass"))
	moved, err := bootstrapdata.Migrate(t.Context(), &raced{s, func() {
		if moved, err := bootstrapdata.Migrate(t.Context(), s, "pass"); err != nil || !moved {
			t.Errorf("the faster one: %v, %v", moved, err)
		}
		if _, err := bootstrapdata.Replace(t.Context(), s, "pass", rotate("since then")); err != nil {
			t.Error(err)
		}
	}}, "pass")
	if err != nil || moved {
		t.Errorf("the slower one: got %v, %v", moved, err)
	}
	if d := load(t, s); string(d["ServerCA"].Content) != "since then" || d.Generation() != 2 {
		t.Errorf("got %q, generation %d", d["ServerCA"].Content, d.Generation())
	}
	s = &storetest.Memory{}
	legacy(t, s, "", "", passwdOf("pass"))
	if _, err := bootstrapdata.Migrate(t.Context(), always{s}, "pass"); err == nil || !strings.Contains(err.Error(), "try again") {
		t.Errorf("others that never rest: got %v", err)
	}
	down := errors.New("down")
	s.Err = down
	if _, err := bootstrapdata.Migrate(t.Context(), s, "pass"); !errors.Is(err, down) {
		t.Errorf("without the store: got %v", err)
	}
}

// always is a store that another server always writes first.
type always struct{ *storetest.Memory }

func (always) Commit(context.Context, []bootstrapdata.Record, []bootstrapdata.Record, []string) (bool, error) {
	return false, nil
}
