package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/imagebuild/esp"
	"keelson/imagebuild/input"
	"keelson/imagebuild/input/apt"
	"keelson/imagebuild/internal/testkey"
	"keelson/imagebuild/kernel"
)

func TestOpenSigner(t *testing.T) {
	t.Chdir("..")
	if p, err := (trust{}).openSigner(); p != nil || err != nil {
		t.Errorf("nothing given: got %v, %v", p, err)
	}
	want := testkey.New(t, "signer")
	key, cert := testkey.Files(t, want)
	if p, err := (trust{key: key, cert: cert}).openSigner(); err != nil || !p.Certificate.Equal(want.Certificate) {
		t.Errorf("both given: got %v", err)
	}
	otherKey, _ := testkey.Files(t, testkey.New(t, "other"))
	for _, c := range []struct {
		name, key, cert, want string
	}{
		{"key alone", key, "", "without SIGN_CERT"},
		{"certificate alone", "", cert, "without SIGN_KEY"},
		{"not a pair", otherKey, cert, "does not belong"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, progress bytes.Buffer
			err := run(context.Background(), []string{"build", "--sign-key", c.key, "--sign-cert", c.cert}, &out, &progress)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("build: got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestKeysNoticeTheSigner(t *testing.T) {
	s, _ := newState(t)
	for _, name := range []string{"initrd", "vmlinuz", "keelson.efi"} {
		if err := os.WriteFile(s.part(name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.kernel, s.packages = kernelOf(s.part("vmlinuz")), packagesOf("systemd-boot-efi", "grub-pc-bin")
	seen := map[string]string{}
	for _, name := range []string{"nobody", "one", "other"} {
		if name != "nobody" {
			s.signer = testkey.New(t, name)
		}
		uki, err := ukiKey(s)
		if err != nil {
			t.Fatal(err)
		}
		esp, err := espKey(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{uki, esp} {
			if was, ok := seen[key]; ok {
				t.Errorf("signed by %s and by %s: the same key", was, name)
			}
			seen[key] = name
		}
	}
}

func TestSignLeavesAlone(t *testing.T) {
	s, _ := newState(t)
	if got, err := s.sign("text", []byte("text")); err != nil || string(got) != "text" {
		t.Errorf("without a signer: got %q, %v", got, err)
	}
	s.signer = testkey.New(t, "signer")
	if _, err := s.sign("text", []byte("text")); err == nil || !strings.Contains(err.Error(), "sign text: ") {
		t.Errorf("text with a signer: got %v", err)
	}
}

func kernelOf(image string) *kernel.Kernel { return &kernel.Kernel{Image: image} }

func packagesOf(names ...string) []input.Package {
	var out []input.Package
	for _, name := range names {
		out = append(out, input.Package{Package: apt.Package{Name: name, SHA256: "sum of " + name}, Want: name})
	}
	return out
}

func TestEnrolment(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	var out bytes.Buffer
	if err := run(context.Background(), []string{"keys", dir}, &out, &out); err != nil || !strings.Contains(out.String(), "KEELSON_ENROLL="+dir) {
		t.Fatalf("keys: got %v, %s", err, &out)
	}
	s, _ := newState(t)
	s.source.Epoch = time.Unix(1700000000, 0)
	none, err := s.trustKey()
	if err != nil {
		t.Fatal(err)
	}
	s.config.Trust.enroll = dir
	variables, err := s.enrolled()
	if err != nil || len(variables) != 3 {
		t.Fatalf("enrolled: got %d variables, %v", len(variables), err)
	}
	key, err := s.trustKey()
	if err != nil || key == none {
		t.Errorf("the key does not notice the variables: %v", err)
	}
	files, err := esp.Contents(esp.Parts{Arch: "amd64", Slot: "a", Loader: []byte("l"), UKI: []byte("u"), Enroll: variables})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"PK", "KEK", "db"} {
		if e, ok := files.Get("/loader/keys/auto/" + name + ".auth"); !ok || e.Size != int64(len(variables[name])) {
			t.Errorf("%s.auth is not on the ESP", name)
		}
	}
	s.config.Trust.enroll = t.TempDir()
	if _, err := s.trustKey(); err == nil || !strings.Contains(err.Error(), "neither PK.auth nor PK.crt") {
		t.Errorf("an empty folder: got %v", err)
	}
	if err := run(context.Background(), []string{"keys"}, &out, &out); err == nil || !strings.Contains(err.Error(), "want one directory") {
		t.Errorf("keys of nothing: got %v", err)
	}
}
