package bootstrapdata_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/storetest"
	"keelson/node/token"
)

// lost is what Recover is asked for, and what it has given to be kept.
func lost(dir string, kept *[]bootstrapdata.Record) bootstrapdata.Recovery {
	return bootstrapdata.Recovery{
		ServerDir: dir, Next: "next",
		Users: []token.User{{Name: "node", Password: "next", Roles: []string{token.RoleAgent}}, {Name: "server", Password: "next", Roles: []string{token.RoleServer}}},
		Keep:  func(all []bootstrapdata.Record) error { *kept = all; return nil },
	}
}

func TestRecover(t *testing.T) {
	ctx := t.Context()
	s, dir := saved(t)
	if _, err := bootstrapdata.Replace(ctx, s, "pass", rotate("newer")); err != nil {
		t.Fatal(err)
	}
	sync(t, s, dir)
	other := t.TempDir() // a second server
	sync(t, s, other)
	before := bootstraps(t, s)
	if err := os.Remove(filepath.Join(dir, "cred/passwd")); err != nil {
		t.Fatal(err)
	}
	var kept []bootstrapdata.Record
	generation, err := bootstrapdata.Recover(ctx, s, lost(dir, &kept))
	if err != nil || generation != 3 {
		t.Fatalf("got %d, %v", generation, err)
	}
	if len(kept) == 0 || kept[0].Key != bootstrapdata.Key("pass") || kept[0].Value != before[kept[0].Key] {
		t.Errorf("kept %v", kept)
	}
	if got, want := fmt.Sprint(records(t, s)), fmt.Sprint([]string{bootstrapdata.Key("next"), bootstrapdata.RecoveryKey}); got != want {
		t.Errorf("the store holds %s, want %s", got, want)
	}
	d, err := bootstrapdata.Load(ctx, s, "next")
	if err != nil {
		t.Fatal(err)
	}
	if d.Generation() != 3 || string(d["ServerCA"].Content) != "newer" || string(d["PasswdFile"].Content) != passwdOf("next") {
		t.Errorf("got generation %d, %q, %q", d.Generation(), d["ServerCA"].Content, d["PasswdFile"].Content)
	}
	if err := bootstrapdata.Prove(dir, sealOf(t, s), bootstraps(t, s)[bootstrapdata.Key("next")]); err != nil {
		t.Errorf("the new record's seal: %v", err)
	}
	if _, err := bootstrapdata.Load(ctx, s, "pass"); !errors.Is(err, bootstrapdata.ErrOtherToken) || !strings.Contains(err.Error(), "node token recover") {
		t.Errorf("the token before: got %v", err)
	}

	note, ok, err := bootstrapdata.LastRecovery(ctx, s)
	if err != nil || !ok {
		t.Fatalf("got %v, %v", ok, err)
	}
	for _, server := range []string{dir, other} {
		if next, err := note.Open(server); err != nil || next != "next" {
			t.Errorf("a server opens %q, %v", next.Reveal(), err)
		}
		if wrote, err := bootstrapdata.Sync(ctx, s, "next", server); err != nil || server == other && len(wrote) != 0 {
			t.Errorf("a server wrote %v, %v", wrote, err)
		}
	}
	for name, key := range map[string]string{"another authority": "x", "no authority": ""} {
		stranger := t.TempDir()
		write(t, filepath.Join(stranger, "tls/server-ca.key"), key)
		if _, err := note.Open(stranger); !errors.Is(err, bootstrapdata.ErrRecovery) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if strings.Contains(fmt.Sprintf("%v %+v", note, kept), "next") {
		t.Error("the token is told in clear")
	}
	if err := bootstrapdata.Rotate(ctx, s, "next", "third", soon()); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := bootstrapdata.LastRecovery(ctx, s); ok || err != nil {
		t.Errorf("after the next rotation: got %v, %v", ok, err)
	}
}

// TestRecoverRefuses what could take something from the cluster, and then changes and keeps nothing.
func TestRecoverRefuses(t *testing.T) {
	refused := errors.New("disk full")
	for _, c := range []struct {
		name   string
		spoil  func(t *testing.T, s *storetest.Memory, dir string)
		change func(*bootstrapdata.Recovery)
		want   error
		words  string
	}{
		{"the disk's authority is older", func(t *testing.T, s *storetest.Memory, _ string) {
			if _, err := bootstrapdata.Replace(t.Context(), s, "pass", func(d bootstrapdata.Data) (bootstrapdata.Data, error) {
				d["ServerCAKey"] = bootstrapdata.File{Content: []byte("newer")}
				return d, nil
			}); err != nil {
				t.Fatal(err)
			}
		}, nil, bootstrapdata.ErrNoProof, "another one's than that of the cluster's authority"},
		{"so it is, and nobody minds", func(t *testing.T, s *storetest.Memory, dir string) {
			write(t, filepath.Join(dir, "tls/server-ca.key"), "older")
		}, func(r *bootstrapdata.Recovery) { r.Unsealed = true }, bootstrapdata.ErrNoProof, "server-ca.key"},
		{"no key at all", func(t *testing.T, _ *storetest.Memory, dir string) {
			if err := os.Remove(filepath.Join(dir, "tls/server-ca.key")); err != nil {
				t.Fatal(err)
			}
		}, nil, bootstrapdata.ErrNoProof, "server-ca.key"},
		{"another encryption key", func(t *testing.T, _ *storetest.Memory, dir string) {
			write(t, filepath.Join(dir, "cred/encryption-config.json"), "older")
		}, nil, bootstrapdata.ErrNoProof, "cred/encryption-config.json"},
		{"a file is gone", func(t *testing.T, _ *storetest.Memory, dir string) {
			if err := os.Remove(filepath.Join(dir, "tls/service.key")); err != nil {
				t.Fatal(err)
			}
		}, nil, bootstrapdata.ErrNoProof, "tls/service.key"},
		{"no seal", unseal, nil, bootstrapdata.ErrUnsealed, "--unsealed"},
		{"no seal, changed since, and nobody minds", func(t *testing.T, s *storetest.Memory, dir string) {
			unseal(t, s, dir)
			write(t, filepath.Join(dir, "tls/client-ca.crt"), "changed")
		}, func(r *bootstrapdata.Recovery) { r.Unsealed = true }, bootstrapdata.ErrNoProof, "tls/client-ca.crt"},
		{"no seal and no memory, a file gone", func(t *testing.T, s *storetest.Memory, dir string) {
			unseal(t, s, dir)
			for _, path := range []string{"cred/.bootstrap-agreed.json", "cred/encryption-config.json"} {
				if err := os.Remove(filepath.Join(dir, path)); err != nil {
					t.Fatal(err)
				}
			}
		}, func(r *bootstrapdata.Recovery) { r.Unsealed = true }, bootstrapdata.ErrNoProof, "encryption-config.json"},
		{"the old record cannot be kept", func(*testing.T, *storetest.Memory, string) {},
			func(r *bootstrapdata.Recovery) { r.Keep = func([]bootstrapdata.Record) error { return refused } }, refused, "recover the token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, dir := saved(t)
			c.spoil(t, s, dir)
			before, seal := bootstraps(t, s), sealOf(t, s)
			var kept []bootstrapdata.Record
			r := lost(dir, &kept)
			if c.change != nil {
				c.change(&r)
			}
			if _, err := bootstrapdata.Recover(t.Context(), s, r); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.words)
			}
			if after := bootstraps(t, s); fmt.Sprint(after) != fmt.Sprint(before) || sealOf(t, s) != seal || len(kept) > 0 {
				t.Errorf("the store had %v, and has %v; kept %v", before, after, kept)
			}
		})
	}
	var kept []bootstrapdata.Record
	if _, err := bootstrapdata.Recover(t.Context(), &storetest.Memory{}, lost(server(t), &kept)); !errors.Is(err, bootstrapdata.ErrNone) {
		t.Errorf("no record: got %v", err)
	}
}

// unseal leaves a record as RKE2 writes it.
func unseal(t *testing.T, s *storetest.Memory, _ string) {
	t.Helper()
	if _, err := s.Commit(t.Context(), nil, nil, []string{bootstrapdata.SealKey}); err != nil {
		t.Fatal(err)
	}
}

// TestRecoverUnsealed: on the word of who asks, far beyond any generation that another server may have followed.
func TestRecoverUnsealed(t *testing.T) {
	s, dir := saved(t)
	unseal(t, s, dir)
	var kept []bootstrapdata.Record
	r := lost(dir, &kept)
	r.Unsealed = true
	if generation, err := bootstrapdata.Recover(t.Context(), s, r); err != nil || generation != 1001 {
		t.Errorf("got %d, %v", generation, err)
	}
	if _, err := bootstrapdata.Sync(t.Context(), s, "next", dir); err != nil {
		t.Error(err)
	}
}

// TestRecoverTakesEverythingInTheWay: a rotation nobody has a token of, and several records, which no server reads.
func TestRecoverTakesEverythingInTheWay(t *testing.T) {
	s, dir := saved(t)
	if err := bootstrapdata.Rotate(t.Context(), s, "pass", "forgotten", soon()); err != nil {
		t.Fatal(err)
	}
	legacy(t, s, "stranger", "stranger", passwdOf("stranger"))
	var kept []bootstrapdata.Record
	if _, err := bootstrapdata.Recover(t.Context(), s, lost(dir, &kept)); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(records(t, s)), fmt.Sprint([]string{bootstrapdata.Key("next"), bootstrapdata.RecoveryKey}); got != want {
		t.Errorf("the store holds %s, want %s", got, want)
	}
	keys := map[string]bool{}
	for _, r := range kept {
		keys[r.Key] = r.Value != ""
	}
	for _, key := range []string{bootstrapdata.Key("forgotten"), bootstrapdata.Key("stranger"), bootstrapdata.RotationKey, bootstrapdata.SealKey} {
		if !keys[key] {
			t.Errorf("%s is not kept", key)
		}
	}
}

// TestRecoverAtOnce: two servers, or a server that writes the record meanwhile. Nothing that was written is lost.
func TestRecoverAtOnce(t *testing.T) {
	s, dir := saved(t)
	var kept, theirs []bootstrapdata.Record
	r := lost(dir, &theirs)
	r.Next = "theirs"
	generation, err := bootstrapdata.Recover(t.Context(), &raced{s, func() {
		if _, err := bootstrapdata.Recover(t.Context(), s, r); err != nil {
			t.Error(err)
		}
	}}, lost(dir, &kept))
	if err != nil || generation != 3 {
		t.Errorf("got %d, %v", generation, err)
	}
	if len(kept) == 0 || kept[0].Key != bootstrapdata.Key("theirs") {
		t.Errorf("the faster one's record is not kept: %v", kept)
	}
	s, dir = saved(t)
	if _, err = bootstrapdata.Recover(t.Context(), &raced{s, func() {
		if _, err := bootstrapdata.Replace(t.Context(), s, "pass", rotate("since then")); err != nil {
			t.Error(err)
		}
	}}, lost(dir, &kept)); !errors.Is(err, bootstrapdata.ErrNoProof) {
		t.Errorf("a record that was written meanwhile: got %v", err)
	}
	if d := load(t, s); string(d["ServerCA"].Content) != "since then" {
		t.Errorf("got %q", d["ServerCA"].Content)
	}
	s, dir = saved(t)
	if _, err := bootstrapdata.Recover(t.Context(), always{s}, lost(dir, &kept)); err == nil || !strings.Contains(err.Error(), "try again") {
		t.Errorf("others that never rest: got %v", err)
	}
	for _, applied := range []bool{false, true} {
		s, dir = saved(t)
		if _, err := bootstrapdata.Recover(t.Context(), cutOff{s, applied}, lost(dir, &kept)); !errors.Is(err, errPower) {
			t.Fatal(err)
		}
		if _, err := bootstrapdata.Load(t.Context(), s, map[bool]token.Secret{false: "pass", true: "next"}[applied]); err != nil {
			t.Errorf("power cut, applied %v: %v", applied, err)
		}
	}
}

func FuzzRecovery(f *testing.F) {
	f.Add(`{"to":"/bootstrap/a","token":"a:AAAA"}`)
	f.Add("{}")
	f.Fuzz(func(t *testing.T, text string) {
		s := &storetest.Memory{}
		for key, value := range map[string]string{bootstrapdata.RecoveryKey: text, "/bootstrap/a": "x"} {
			if _, err := s.Put(t.Context(), key, value, 0); err != nil {
				t.Fatal(err)
			}
		}
		note, ok, err := bootstrapdata.LastRecovery(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			if _, err := note.Open(t.TempDir()); err == nil {
				t.Fatal("a foreign note opens")
			}
		}
	})
}
