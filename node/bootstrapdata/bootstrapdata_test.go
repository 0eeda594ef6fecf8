package bootstrapdata_test

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/storetest"
	"keelson/node/token"
)

// The vector: made with Go's crypto/pbkdf2, its key confirmed by Python's hashlib, and opened by an independent
// decryptor of RKE2's records.
const (
	vectorPassword = "rke2-test-password"
	vectorPlain    = `{"ServerCA":{"Timestamp":"2026-01-02T03:04:05Z","Content":"aGVsbG8K"}}` + "\n"
	vectorValue    = "0123456789abcdef:AAECAwQFBgcICQoLkkc2Lt1BcthquN7lX/KzWpeipVMYPeg4d2ldpts98fb2PGbZVZNp7Lz5OiPYCJRLWUVnSmxssBrOYLgWxThetEy7Kl2c0bnDdqG9vEjfG1A5swbf1GcZ"
)

func TestVector(t *testing.T) {
	nonce, _ := hex.DecodeString("000102030405060708090a0b")
	got, err := bootstrapdata.Seal(vectorPassword, []byte(vectorPlain), "0123456789abcdef", nonce)
	if err != nil || got != vectorValue {
		t.Errorf("seal: got %s, %v", got, err)
	}
	plain, err := bootstrapdata.Decrypt(vectorPassword, vectorValue)
	if err != nil || string(plain) != vectorPlain {
		t.Errorf("decrypt: got %q, %v", plain, err)
	}
	if got := bootstrapdata.Key(vectorPassword); got != "/bootstrap/2d14106934ce" {
		t.Errorf("key: got %s", got)
	}
	d, err := bootstrapdata.Decode(plain)
	if err != nil || string(d["ServerCA"].Content) != "hello\n" {
		t.Fatalf("decode: got %v, %v", d, err)
	}
	if out, err := d.Encode(); err != nil || string(out) != vectorPlain {
		t.Errorf("encode: got %q, %v", out, err)
	}
}

func TestDecryptErrors(t *testing.T) {
	for _, c := range []struct {
		name, password, value string
		want                  error
	}{
		{"other password", "x", vectorValue, bootstrapdata.ErrPassword},
		{"changed", vectorPassword, strings.Replace(vectorValue, "GcZ", "GcY", 1), bootstrapdata.ErrPassword},
		{"changed salt", vectorPassword, "1" + vectorValue[1:], bootstrapdata.ErrPassword},
		{"no colon", vectorPassword, "abc", bootstrapdata.ErrCipher},
		{"no base64", vectorPassword, "abc:*", bootstrapdata.ErrCipher},
		{"short", vectorPassword, "abc:AAAA", bootstrapdata.ErrCipher},
		{"empty", vectorPassword, "", bootstrapdata.ErrCipher},
	} {
		if _, err := bootstrapdata.Decrypt(token.Secret(c.password), c.value); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestDecode(t *testing.T) {
	d, err := bootstrapdata.Decode([]byte(`{"ServerCA":"aGVsbG8K","Future":{"Timestamp":"2026-01-02T03:04:05.5+02:00","Content":"eA=="}}`))
	if err != nil || string(d["ServerCA"].Content) != "hello\n" || string(d["Future"].Content) != "x" {
		t.Errorf("old form and unknown name: got %v, %v", d, err)
	}
	for _, bad := range []string{"", "[]", `{"a":1}`, `{"a":{"Content":"*"}}`, `{"ServerCAKey":{"Timestamp":"secret-text","Content":""}}`} {
		if _, err := bootstrapdata.Decode([]byte(bad)); err == nil || strings.Contains(err.Error(), "secret-text") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

// server fills a <server> folder with every file of the record, each holding its name.
func server(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, e := range bootstrapdata.Entries() {
		write(t, filepath.Join(dir, e.Path), e.Name)
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, dir, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func sync(t *testing.T, s bootstrapdata.Transactor, dir string) []string {
	t.Helper()
	paths, err := bootstrapdata.Sync(t.Context(), s, "pass", dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range paths {
		paths[i], _ = filepath.Rel(dir, paths[i])
	}
	return paths
}

func TestSyncSavesOnceAndFollowsThen(t *testing.T) {
	s := &storetest.Memory{}
	first := server(t)
	if got := sync(t, s, first); len(got) != 0 {
		t.Errorf("first: wrote %v", got)
	}
	if got := sync(t, s, first); len(got) != 0 {
		t.Errorf("again: wrote %v", got)
	}
	second := t.TempDir()
	if got := sync(t, s, second); len(got) != len(bootstrapdata.Entries()) {
		t.Errorf("empty server: wrote %v", got)
	}
	for _, e := range bootstrapdata.Entries() {
		if got := read(t, second, e.Path); got != e.Name {
			t.Errorf("%s: got %q", e.Path, got)
		}
		a, _ := os.Stat(filepath.Join(first, e.Path))
		b, _ := os.Stat(filepath.Join(second, e.Path))
		if !a.ModTime().Equal(b.ModTime()) || b.Mode() != 0o600 {
			t.Errorf("%s: time %v, want %v; mode %v", e.Path, b.ModTime(), a.ModTime(), b.Mode())
		}
	}
	if err := os.Remove(filepath.Join(second, "tls/server-ca.key")); err != nil {
		t.Fatal(err)
	}
	if got := sync(t, s, second); !slices.Equal(got, []string{"tls/server-ca.key"}) {
		t.Errorf("missing file: wrote %v", got)
	}
}

// TestWhoChanged: the record's change is taken over, the disk's own is a conflict, whatever the clocks say.
func TestWhoChanged(t *testing.T) {
	const ca = "tls/server-ca.crt"
	agree := func(t *testing.T) (string, bootstrapdata.Data) {
		dir := server(t)
		record, err := bootstrapdata.Collect(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bootstrapdata.Reconcile(dir, record); err != nil {
			t.Fatal(err)
		}
		return dir, record
	}
	future := bootstrapdata.File{Timestamp: time.Now().Add(time.Hour), Content: []byte("rotated")}
	past := bootstrapdata.File{Timestamp: time.Unix(0, 0), Content: []byte("rotated")}
	for _, c := range []struct {
		name     string
		change   func(t *testing.T, dir string, record bootstrapdata.Data)
		conflict bool
		want     string
	}{
		{"record, with a later time", func(t *testing.T, dir string, r bootstrapdata.Data) { r["ServerCA"] = future }, false, "rotated"},
		{"record, with an earlier time", func(t *testing.T, dir string, r bootstrapdata.Data) { r["ServerCA"] = past }, false, "rotated"},
		{"disk", func(t *testing.T, dir string, r bootstrapdata.Data) { write(t, filepath.Join(dir, ca), "edited") }, true, "edited"},
		{"both alike", func(t *testing.T, dir string, r bootstrapdata.Data) {
			r["ServerCA"] = past
			write(t, filepath.Join(dir, ca), "rotated")
		}, false, "rotated"},
		{"both", func(t *testing.T, dir string, r bootstrapdata.Data) {
			r["ServerCA"] = future
			write(t, filepath.Join(dir, ca), "edited")
		}, true, "edited"},
		{"disk, with another file of the record", func(t *testing.T, dir string, r bootstrapdata.Data) {
			r["ClientCA"] = future
			write(t, filepath.Join(dir, ca), "edited")
		}, true, "edited"},
		{"memory lost", func(t *testing.T, dir string, r bootstrapdata.Data) {
			r["ServerCA"] = future
			if err := os.Remove(filepath.Join(dir, "cred/.bootstrap-agreed.json")); err != nil {
				t.Fatal(err)
			}
		}, true, "ServerCA"},
		{"folder emptied", func(t *testing.T, dir string, r bootstrapdata.Data) {
			write(t, filepath.Join(dir, ca), "edited")
			if err := os.RemoveAll(filepath.Join(dir, "tls/etcd")); err != nil {
				t.Fatal(err)
			}
		}, false, "ServerCA"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, record := agree(t)
			c.change(t, dir, record)
			_, err := bootstrapdata.Reconcile(dir, record)
			var conflict *bootstrapdata.ErrConflict
			if errors.As(err, &conflict) != c.conflict || err != nil && !c.conflict {
				t.Fatalf("got %v, want a conflict: %v", err, c.conflict)
			}
			if c.conflict && !slices.Equal(conflict.Paths, []string{filepath.Join(dir, ca)}) {
				t.Errorf("conflict names %v", conflict.Paths)
			}
			if got := read(t, dir, ca); got != c.want {
				t.Errorf("file: got %q, want %q", got, c.want)
			}
			if c.conflict && read(t, dir, "tls/client-ca.crt") != "ClientCA" {
				t.Error("another file was written in spite of the conflict")
			}
		})
	}
}

func TestPasswordFileMayChange(t *testing.T) {
	s := &storetest.Memory{}
	dir := server(t)
	sync(t, s, dir)
	write(t, filepath.Join(dir, "cred/passwd"), "new agent token")
	if got := sync(t, s, dir); len(got) != 0 {
		t.Errorf("wrote %v", got)
	}
	if got := read(t, dir, "cred/passwd"); got != "new agent token" {
		t.Errorf("got %q", got)
	}
}

func TestOtherRecordsAreRefused(t *testing.T) {
	ctx := t.Context()
	s := &storetest.Memory{}
	if _, err := bootstrapdata.Load(ctx, s, "pass"); !errors.Is(err, bootstrapdata.ErrNone) {
		t.Errorf("empty: got %v", err)
	}
	sync(t, s, server(t))
	if _, err := bootstrapdata.Save(ctx, s, "other", nil); !errors.Is(err, bootstrapdata.ErrOtherToken) {
		t.Errorf("other token: got %v", err)
	}
	if _, err := bootstrapdata.Load(ctx, s, "other"); !errors.Is(err, bootstrapdata.ErrOtherToken) {
		t.Errorf("other token: got %v", err)
	}
	if _, err := s.Put(ctx, bootstrapdata.Prefix+"000000000000", "x", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := bootstrapdata.Load(ctx, s, "pass"); !errors.Is(err, bootstrapdata.ErrSeveral) {
		t.Errorf("two: got %v", err)
	}
	down := errors.New("down")
	s.Err = down
	if _, err := bootstrapdata.Save(ctx, s, "pass", nil); !errors.Is(err, down) {
		t.Errorf("store down: got %v", err)
	}
}

func TestLockIsReplaced(t *testing.T) {
	ctx := t.Context()
	s := &storetest.Memory{}
	if _, err := s.Put(ctx, bootstrapdata.Key("pass"), "", 0); err != nil {
		t.Fatal(err)
	}
	if saved, err := bootstrapdata.Save(ctx, s, "pass", bootstrapdata.Data{"ServerCA": {Content: []byte("x")}}); err != nil || !saved {
		t.Errorf("got %v, %v", saved, err)
	}
	if d, err := bootstrapdata.Load(ctx, s, "pass"); err != nil || string(d["ServerCA"].Content) != "x" {
		t.Errorf("got %v, %v", d, err)
	}
}

func TestServeFallsBackToDisk(t *testing.T) {
	s := &storetest.Memory{}
	dir := server(t)
	sync(t, s, dir)
	write(t, filepath.Join(dir, "cred/passwd"), "on disk only")
	has := func(text string) bool {
		t.Helper()
		out, err := bootstrapdata.Serve(t.Context(), s, "pass", dir)
		if err != nil {
			t.Fatal(err)
		}
		d, err := bootstrapdata.Decode(out)
		if err != nil {
			t.Fatal(err)
		}
		return string(d["PasswdFile"].Content) == text
	}
	if !has("PasswdFile") {
		t.Error("with the store: not the record")
	}
	s.Err = errors.New("down")
	if !has("on disk only") {
		t.Error("without the store: not the disk")
	}
}

func FuzzDecrypt(f *testing.F) {
	f.Add(vectorValue, []byte(vectorPlain))
	f.Add("a:AAAA", []byte(`{"a":"eA=="}`))
	f.Fuzz(func(t *testing.T, value string, plain []byte) {
		if out, err := bootstrapdata.Decrypt(vectorPassword, value); err == nil && string(out) != vectorPlain {
			t.Fatalf("a foreign record was opened: %q", out)
		}
		d, err := bootstrapdata.Decode(plain)
		if err != nil {
			return
		}
		out, err := d.Encode()
		if err != nil {
			return // a time that RFC 3339 cannot write
		}
		if _, err := bootstrapdata.Decode(out); err != nil {
			t.Fatalf("written and read again: %v", err)
		}
	})
}
