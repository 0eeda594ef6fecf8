package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"keelson/imagebuild/input"
	"keelson/imagebuild/input/apt"
	"keelson/imagebuild/internal/testkey"
	"keelson/imagebuild/kernel"
)

func TestOpenSigner(t *testing.T) {
	if p, err := (trust{}).openSigner(); p != nil || err != nil {
		t.Errorf("nothing given: got %v, %v", p, err)
	}
	want := testkey.New(t, "signer")
	key, cert := testkey.Files(t, want)
	if p, err := (trust{key, cert}).openSigner(); err != nil || !p.Certificate.Equal(want.Certificate) {
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
