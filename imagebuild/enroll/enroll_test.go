package enroll_test

import (
	"bytes"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/imagebuild/enroll"
	"keelson/imagebuild/internal/testkey"
	"keelson/imagebuild/pkcs7"
)

func stamp() time.Time { return time.Date(2024, 2, 29, 13, 45, 58, 0, time.UTC) }

func generate(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if err := enroll.Generate(dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func pair(t testing.TB, dir, name string) *pkcs7.Pair {
	t.Helper()
	p, err := pkcs7.LoadPair(filepath.Join(dir, name+".key"), filepath.Join(dir, name+".crt"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGenerateAndLoad(t *testing.T) {
	dir := generate(t)
	got, err := enroll.Load(dir, stamp())
	if err != nil {
		t.Fatal(err)
	}
	again, err := enroll.Load(dir, stamp())
	if err != nil || len(got) != 3 {
		t.Fatalf("Load: got %d variables, %v", len(got), err)
	}
	for i, want := range []struct{ name, signer string }{{"PK", "PK"}, {"KEK", "PK"}, {"db", "KEK"}} {
		if got[i].Name != want.name || !bytes.Equal(got[i].Auth, again[i].Auth) {
			t.Errorf("variable %d: got %s, want %s and the same bytes each time", i, got[i].Name, want.name)
		}
		content, err := enroll.Parse(want.name, got[i].Auth)
		if err != nil {
			t.Errorf("%s: %v", want.name, err)
			continue
		}
		if !content.Signer.Equal(pair(t, dir, want.signer).Certificate) {
			t.Errorf("%s is signed by %s, want %s", want.name, content.Signer.Subject, want.signer)
		}
		if len(content.Certificates) != 1 || !content.Certificates[0].Equal(pair(t, dir, want.name).Certificate) {
			t.Errorf("%s holds %d certificates", want.name, len(content.Certificates))
		}
		info, err := os.Stat(filepath.Join(dir, want.name+".key"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s.key: %v, %v", want.name, info.Mode(), err)
		}
	}
	if err := enroll.Generate(dir, time.Now()); err == nil || !strings.Contains(err.Error(), "never overwritten") {
		t.Errorf("Generate into a folder with keys: got %v", err)
	}
}

func TestLoadReadyFiles(t *testing.T) {
	dir := generate(t)
	made, err := enroll.Load(dir, stamp())
	if err != nil {
		t.Fatal(err)
	}
	ready := t.TempDir() // no key is there
	for _, v := range made {
		if err := os.WriteFile(filepath.Join(ready, v.Name+".auth"), v.Auth, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := enroll.Load(ready, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if !bytes.Equal(got[i].Auth, made[i].Auth) {
			t.Errorf("%s.auth was changed", got[i].Name)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(t *testing.T, dir string)
		want string
	}{
		{"nothing for db", func(t *testing.T, dir string) { remove(t, dir, "db.crt") }, "neither db.auth nor db.crt"},
		{"no signing key", func(t *testing.T, dir string) { remove(t, dir, "KEK.key") }, "db must be signed by KEK"},
		{"no pair", func(t *testing.T, dir string) { rename(t, dir, "db.key", "PK.key") }, "does not belong"},
		{"no certificate", func(t *testing.T, dir string) { rename(t, dir, "db.key", "db.crt") }, "db.crt: PEM of a PRIVATE KEY"},
		{"bad auth", func(t *testing.T, dir string) { rename(t, dir, "db.key", "db.auth") }, "db.auth: no authenticated variable"},
		{"auth of another", func(t *testing.T, dir string) {
			made, err := enroll.Load(dir, stamp())
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "db.auth"), made[1].Auth, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "was it made for db?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := generate(t)
			c.edit(t, dir)
			if _, err := enroll.Load(dir, stamp()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, dir, from, to string) {
	t.Helper()
	if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
		t.Fatal(err)
	}
}

// sbsigntool is the second opinion: its signature list is ours, and its .auth
// file can be read here.
func TestReferenceTools(t *testing.T) {
	lister, err := exec.LookPath("sbsiglist")
	if err != nil {
		t.Skip("SKIPPED: sbsiglist is absent (Debian: sbsigntool)")
	}
	dir := generate(t)
	p := pair(t, dir, "PK")
	auth, err := enroll.Render("PK", []*x509.Certificate{p.Certificate}, p, stamp())
	if err != nil {
		t.Fatal(err)
	}
	der, list, out := filepath.Join(dir, "der"), filepath.Join(dir, "list"), filepath.Join(dir, "out.auth")
	if err := os.WriteFile(der, p.Certificate.Raw, 0o600); err != nil {
		t.Fatal(err)
	}
	const owner = "11111111-2222-3333-4444-123456789abc"
	if msg, err := exec.Command(lister, "--owner", owner, "--type", "x509", "--output", list, der).CombinedOutput(); err != nil {
		t.Fatalf("sbsiglist: %v\n%s", err, msg)
	}
	want, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	got := auth[len(auth)-len(want):]
	if !bytes.Equal(got[:28], want[:28]) || !bytes.Equal(got[44:], want[44:]) { // the owner is another
		t.Errorf("signature list differs from sbsiglist's:\n%x\n%x", got[:60], want[:60])
	}
	if msg, err := exec.Command("sbvarsign", "--key", filepath.Join(dir, "PK.key"), "--cert", filepath.Join(dir, "PK.crt"),
		"--attr", "NON_VOLATILE,BOOTSERVICE_ACCESS,RUNTIME_ACCESS", "--output", out, "PK", list).CombinedOutput(); err != nil {
		t.Fatalf("sbvarsign: %v\n%s", err, msg)
	}
	foreign, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	content, err := enroll.Parse("PK", foreign)
	if err != nil || !content.Signer.Equal(p.Certificate) || len(content.Certificates) != 1 {
		t.Errorf("sbvarsign's file: got %v", err)
	}
}

func TestSeveralCertificates(t *testing.T) {
	p, other := testkey.New(t, "one"), testkey.New(t, "two")
	auth, err := enroll.Render("db", []*x509.Certificate{p.Certificate, other.Certificate}, p, stamp())
	if err != nil {
		t.Fatal(err)
	}
	content, err := enroll.Parse("db", auth)
	if err != nil || len(content.Certificates) != 2 || !content.Certificates[1].Equal(other.Certificate) {
		t.Errorf("got %d certificates, %v", len(content.Certificates), err)
	}
	if _, err := enroll.Render("dbx", nil, p, stamp()); err == nil {
		t.Error("Render of dbx: got no error")
	}
	for i := range auth[:16] { // the time is signed
		changed := bytes.Clone(auth)
		changed[i] ^= 1
		if _, err := enroll.Parse("db", changed); err == nil {
			t.Errorf("byte %d changed: got no error", i)
		}
	}
}

func FuzzParse(f *testing.F) {
	p := testkey.New(f, "signer")
	auth, err := enroll.Render("db", []*x509.Certificate{p.Certificate}, p, stamp())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(auth)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := enroll.Parse("db", b); err == nil && (c.Signer == nil || len(c.Certificates) == 0) {
			t.Fatal("taken, and holds nothing")
		}
	})
}
