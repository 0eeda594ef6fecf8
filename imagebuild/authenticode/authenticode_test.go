package authenticode_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keelson/imagebuild/authenticode"
	"keelson/imagebuild/internal/debfile"
	"keelson/imagebuild/internal/testkey"
	"keelson/imagebuild/internal/testpe"
	"keelson/imagebuild/uki"
)

func TestSignAndVerify(t *testing.T) {
	p := testkey.New(t, "Keelson test")
	for _, tail := range []int{0, 3, 8, 501} {
		image := testpe.Program(512, tail)
		before := bytes.Clone(image)
		signed, err := authenticode.Sign(image, p)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(image, before) {
			t.Error("Sign changed what it was given")
		}
		again, err := authenticode.Sign(image, p)
		if err != nil || !bytes.Equal(signed, again) {
			t.Error("two signatures of the same image differ")
		}
		signer, err := authenticode.Verify(signed)
		if err != nil || !signer.Equal(p.Certificate) {
			t.Errorf("Verify: got %v", err)
		}
		a, errA := authenticode.Digest(image)
		b, errB := authenticode.Digest(signed)
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("tail %d: the digest changes by signing: %v, %v", tail, errA, errB)
		}
		stripped, err := authenticode.Strip(signed)
		if err != nil || !bytes.Equal(bytes.TrimRight(stripped, "\x00"), bytes.TrimRight(image, "\x00")) {
			t.Errorf("tail %d: Strip does not give back the image: %v", tail, err)
		}
		if _, err := authenticode.Sign(signed, p); err == nil || !strings.Contains(err.Error(), "signed already") {
			t.Errorf("signing twice: got %v", err)
		}
	}
	if _, err := authenticode.Verify(testpe.Program(512, 0)); !errors.Is(err, authenticode.ErrUnsigned) {
		t.Errorf("Verify of an unsigned image: got %v", err)
	}
}

// A file is signed as memory is.
func TestSignFile(t *testing.T) {
	p := testkey.New(t, "signer")
	image := testpe.Program(512, 2_000_001) // more than is read at once
	want, err := authenticode.Sign(image, p)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "program.efi")
	if err := os.WriteFile(name, image, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := authenticode.SignFile(f, int64(len(image)), p); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v, which are not those that Sign makes", len(got), err)
	}
	if err := authenticode.SignFile(f, int64(len(want)), p); err == nil || !strings.Contains(err.Error(), "signed already") {
		t.Errorf("signing twice: got %v", err)
	}
	readOnly, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	if err := os.WriteFile(name, image, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := authenticode.SignFile(readOnly, int64(len(image)), p); err == nil {
		t.Error("a file that cannot be written: got no error")
	}
}

// Every byte of the image is covered, but for the checksum.
func TestVerifyChanged(t *testing.T) {
	image := testpe.Program(512, 24)
	signed, err := authenticode.Sign(image, testkey.New(t, "signer"))
	if err != nil {
		t.Fatal(err)
	}
	checksum := 0x40 + 24 + 64
	for i := range image {
		changed := bytes.Clone(signed)
		changed[i] ^= 1
		_, err := authenticode.Verify(changed)
		if covered := i < checksum || i >= checksum+4; (err != nil) != covered {
			t.Errorf("byte %d changed: got %v", i, err)
		}
	}
}

func TestRefuses(t *testing.T) {
	p := testkey.New(t, "signer")
	le := binary.LittleEndian
	const opt, table = 0x40 + 24, 0x40 + 24 + 240
	for _, c := range []struct {
		name string
		edit func(b []byte) []byte
		want string
	}{
		{"text", func([]byte) []byte { return []byte("hello") }, "no EFI program"},
		{"no MZ", func(b []byte) []byte { b[0] = 'N'; return b }, "no EFI program"},
		{"PE32", func(b []byte) []byte { le.PutUint16(b[opt:], 0x10b); le.PutUint16(b[0x40+20:], 224); return b }, "no EFI program"},
		{"gap", func(b []byte) []byte { le.PutUint32(b[table+20:], 520); return b }, "no signature would cover"},
		{"cut", func(b []byte) []byte { return b[:1000] }, "longer than the file"},
		{"headers too long", func(b []byte) []byte { le.PutUint32(b[opt+60:], 4096); return b }, "no place for a signature"},
		{"no directory", func(b []byte) []byte { le.PutUint32(b[opt+108:], 4); return b }, "no EFI program"},
		{"table outside", func(b []byte) []byte { le.PutUint32(b[opt+60:], table); return b }, "section table"},
		{"signature outside", func(b []byte) []byte { le.PutUint32(b[opt+144:], 4096); le.PutUint32(b[opt+148:], 64); return b }, "at the end of the file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.edit(testpe.Program(512, 0))
			if _, err := authenticode.Sign(b, p); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Sign: got %v, want an error with %q", err, c.want)
			}
			if _, err := authenticode.Verify(b); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Verify: got %v, want an error with %q", err, c.want)
			}
			if _, err := authenticode.Strip(b); err == nil {
				t.Error("Strip: got no error")
			}
		})
	}
}

// images are what is signed in earnest, of each architecture that is at hand:
// systemd-boot and a unified kernel image.
func images(t *testing.T) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	const dir = "usr/lib/systemd/boot/efi/"
	for _, arch := range []string{"x64", "aa64"} {
		if arch == "aa64" && len(debfile.All(dir+"linuxaa64.efi.stub")) == 0 {
			t.Log("no arm64 image was built here: its programs are left out")
			continue
		}
		loader, err := os.ReadFile(debfile.Find(t, dir+"systemd-boot"+arch+".efi", "systemd-boot-efi"))
		if err != nil {
			t.Fatal(err)
		}
		out["systemd-boot "+arch] = loader
		stub, err := os.ReadFile(debfile.Find(t, dir+"linux"+arch+".efi.stub", "systemd-boot-efi"))
		if err != nil {
			t.Fatal(err)
		}
		out["uki "+arch], err = uki.Build(stub, uki.Parts{
			OSRelease: []byte("ID=keelson\n"), Cmdline: "quiet", Uname: "6.12",
			Initrd: bytes.Repeat([]byte("i"), 5001), Linux: bytes.Repeat([]byte("l"), 100_003),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestReferenceTools(t *testing.T) {
	p, stranger := testkey.New(t, "Keelson test"), testkey.New(t, "stranger")
	_, cert := testkey.Files(t, p)
	_, wrong := testkey.Files(t, stranger)
	for name, image := range images(t) {
		signed, err := authenticode.Sign(image, p)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		file := filepath.Join(t.TempDir(), "signed.efi")
		if err := os.WriteFile(file, signed, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Run(name+" sbverify", func(t *testing.T) {
			tool := find(t, "sbverify", "sbsigntool")
			out, err := exec.Command(tool, "--cert", cert, file).CombinedOutput()
			// It warns of the symbols behind the loader's sections, which are
			// covered; a unified kernel image has none.
			if err != nil || strings.HasPrefix(name, "uki") && strings.Contains(string(out), "warning") {
				t.Errorf("sbverify: %v\n%s", err, out)
			}
			if out, err := exec.Command(tool, "--cert", wrong, file).CombinedOutput(); err == nil {
				t.Errorf("sbverify with another certificate is content:\n%s", out)
			}
		})
		t.Run(name+" osslsigncode", func(t *testing.T) {
			out, err := exec.Command(find(t, "osslsigncode", "osslsigncode"), "verify", "-CAfile", cert, "-in", file).CombinedOutput()
			if err != nil {
				t.Errorf("osslsigncode: %v\n%s", err, out)
			}
			digest, err := authenticode.Digest(image)
			if err != nil || !strings.Contains(strings.ToLower(string(out)), hex.EncodeToString(digest)) {
				t.Errorf("osslsigncode does not name the digest %x: %v\n%s", digest, err, out)
			}
			if strings.Contains(string(out), "invalid") || strings.Contains(string(out), "MISMATCH") {
				t.Errorf("osslsigncode is not content:\n%s", out)
			}
		})
	}
}

// What sbsign signs, Verify takes: the reverse opinion.
func TestVerifyForeignSignature(t *testing.T) {
	tool := find(t, "sbsign", "sbsigntool")
	p := testkey.New(t, "Keelson test")
	key, cert := testkey.Files(t, p)
	for name, image := range images(t) {
		dir := t.TempDir()
		in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
		if err := os.WriteFile(in, image, 0o600); err != nil {
			t.Fatal(err)
		}
		if msg, err := exec.Command(tool, "--key", key, "--cert", cert, "--output", out, in).CombinedOutput(); err != nil {
			t.Fatalf("sbsign: %v\n%s", err, msg)
		}
		signed, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if signer, err := authenticode.Verify(signed); err != nil || !signer.Equal(p.Certificate) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func find(t *testing.T, program, pkg string) string {
	t.Helper()
	tool, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("SKIPPED: %s is absent (Debian: %s)", program, pkg)
	}
	return tool
}

func FuzzParse(f *testing.F) {
	p := testkey.New(f, "signer")
	signed, err := authenticode.Sign(testpe.Program(512, 5), p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add(testpe.Program(512, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = authenticode.Verify(b)
		// What can be signed must verify, and with the same digest.
		out, err := authenticode.Sign(b, p)
		if err != nil {
			return
		}
		if _, err := authenticode.Verify(out); err != nil {
			t.Fatalf("Sign made what Verify refuses: %v", err)
		}
	})
}
