package bootstrapdata_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/storetest"
)

// sealOf is the seal in the store; "" where there is none.
func sealOf(t *testing.T, s bootstrapdata.Store) string {
	t.Helper()
	all, err := s.List(t.Context(), bootstrapdata.SealKey)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		return ""
	}
	return all[0].Value
}

// TestSealIsNoRecord: RKE2 lists what begins with /bootstrap, and takes each for a record.
func TestSealIsNoRecord(t *testing.T) {
	for _, key := range []string{bootstrapdata.SealKey, bootstrapdata.RecoveryKey, bootstrapdata.RotationKey, bootstrapdata.FollowersPrefix} {
		if strings.HasPrefix(key, "/bootstrap") {
			t.Errorf("%s would be one", key)
		}
	}
}

// TestEveryWriteIsSealed, in the transaction that writes the record.
func TestEveryWriteIsSealed(t *testing.T) {
	s, dir := saved(t)
	proves := func(what string, want error) {
		t.Helper()
		record := ""
		for _, value := range bootstraps(t, s) {
			record = value
		}
		if err := bootstrapdata.Prove(dir, sealOf(t, s), record); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
	}
	proves("first", nil)
	if _, err := bootstrapdata.Replace(t.Context(), s, "pass", rotate("new")); err != nil {
		t.Fatal(err)
	}
	proves("replaced, and the disk is behind", bootstrapdata.ErrNoProof)
	sync(t, s, dir)
	proves("replaced and followed", nil)
	if err := bootstrapdata.Rotate(t.Context(), s, "pass", "next", soon()); err != nil {
		t.Fatal(err)
	}
	proves("another token", nil)
	write(t, filepath.Join(dir, "cred/passwd"), "whatever")
	proves("the password file is nobody's proof", nil)
	write(t, filepath.Join(dir, "cred/encryption-config.json"), "older")
	proves("another encryption key", bootstrapdata.ErrNoProof)
}

// TestForeignRecordsAreSealed when a server with the token sees them: RKE2 does not write seals.
func TestForeignRecordsAreSealed(t *testing.T) {
	s, dir := saved(t)
	first := sealOf(t, s)
	foreign := load(t, s)
	delete(foreign, "KeelsonGeneration")
	plain, err := foreign.Encode()
	if err != nil {
		t.Fatal(err)
	}
	value, err := bootstrapdata.Encrypt("pass", plain)
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.List(t.Context(), bootstrapdata.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), all[0].Key, value, all[0].Revision); err != nil {
		t.Fatal(err)
	}
	if err := bootstrapdata.Prove(dir, first, value); !errors.Is(err, bootstrapdata.ErrUnsealed) {
		t.Errorf("the seal of before: got %v", err)
	}
	sync(t, s, dir)
	if err := bootstrapdata.Prove(dir, sealOf(t, s), value); err != nil {
		t.Errorf("after a server has seen it: %v", err)
	}
	second := sealOf(t, s)
	sync(t, s, dir)
	if sealOf(t, s) != second {
		t.Error("a seal that fits was written again")
	}
	// Who comes late must not put the seal of an old record beside a new one.
	if err := bootstrapdata.Reseal(t.Context(), s, all[0], foreign); err != nil || sealOf(t, s) != second {
		t.Errorf("late: %v, changed %v", err, sealOf(t, s) != second)
	}
}

// TestSealsThatProveNothing: what somebody without the authority's key writes, or cuts off.
func TestSealsThatProveNothing(t *testing.T) {
	s, dir := saved(t)
	record := bootstraps(t, s)[bootstrapdata.Key("pass")]
	good := sealOf(t, s)
	for _, c := range []struct {
		name, seal string
		want       error
	}{
		{"none", "", bootstrapdata.ErrUnsealed},
		{"no JSON", "{", bootstrapdata.ErrUnsealed},
		{"nothing in it", "{}", bootstrapdata.ErrUnsealed},
		{"a list", "[]", bootstrapdata.ErrUnsealed},
		{"another generation", strings.Replace(good, `"generation":1`, `"generation":7`, 1), bootstrapdata.ErrNoProof},
		{"a file less", strings.Replace(good, `"ClientCA"`, `"Other"`, 1), bootstrapdata.ErrNoProof},
		{"another authority's name", strings.Replace(good, `"authority":"`, `"authority":"0`, 1), bootstrapdata.ErrNoProof},
	} {
		if c.seal == good {
			t.Fatalf("%s: nothing was changed", c.name)
		}
		if err := bootstrapdata.Prove(dir, c.seal, record); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// TestSealTellsNoSecret, nor whether a guess at one is right.
func TestSealTellsNoSecret(t *testing.T) {
	a, dir := saved(t)
	write(t, filepath.Join(dir, "tls/server-ca.key"), "another key")
	b := &storetest.Memory{}
	sync(t, b, dir)
	one, other := sealOf(t, a), sealOf(t, b)
	for _, e := range []string{"EncryptionConfig", "IPSECKey"} {
		digest := func(seal string) string {
			_, after, _ := strings.Cut(seal, `"`+e+`":"`)
			return after[:64]
		}
		if digest(one) == digest(other) {
			t.Errorf("%s has the same digest under two authorities", e)
		}
	}
	if strings.Contains(one, "pass") {
		t.Error("the seal holds the token")
	}
}

func FuzzSeal(f *testing.F) {
	f.Add(`{"generation":1,"record":"a","authority":"b","files":{"ServerCA":"c"},"mac":"d"}`)
	f.Add("{}")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		if bootstrapdata.Prove(dir, text, "value") == nil {
			t.Fatal("a foreign seal proves something")
		}
	})
}
