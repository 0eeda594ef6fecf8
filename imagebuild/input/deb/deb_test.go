package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

func member(name string, data []byte) []byte {
	b := fmt.Appendf(nil, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, 0, 0, 0, "100644", len(data))
	b = append(b, data...)
	if len(data)%2 == 1 {
		b = append(b, '\n')
	}
	return b
}

func debOf(suffix string, data []byte) []byte {
	b := []byte(arMagic)
	b = append(b, member("debian-binary", []byte("2.0\n"))...)
	b = append(b, member("control.tar.xz", []byte("odd"))...)
	return append(b, member("data.tar"+suffix, data)...)
}

func tarOf(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.PAXRecords["KEELSON.content"]
		h.PAXRecords = nil
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pack(t *testing.T, suffix string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch suffix {
	case "":
		return data
	case ".xz":
		w, err = xz.NewWriter(&b)
	case ".gz":
		w = gzip.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sample(t *testing.T) []byte {
	return tarOf(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "./usr/bin/prog", Typeflag: tar.TypeReg, Mode: 0o4755, PAXRecords: map[string]string{"KEELSON.content": "body"}},
		tar.Header{Name: "./usr/bin/again", Typeflag: tar.TypeLink, Linkname: "./usr/bin/prog"},
		tar.Header{Name: "./usr/bin/link", Typeflag: tar.TypeSymlink, Linkname: "/etc/absolute"},
		tar.Header{Name: "./etc/conf", Typeflag: tar.TypeReg, Mode: 0o600},
	)
}

func TestUnpack(t *testing.T) {
	for _, suffix := range []string{"", ".xz", ".gz", ".zst"} {
		t.Run("data.tar"+suffix, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "sub", "out")
			if err := Unpack(bytes.NewReader(debOf(suffix, pack(t, suffix, sample(t)))), dir); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"usr/bin/prog", "usr/bin/again"} {
				if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != "body" {
					t.Errorf("%s: got %q, %v", name, got, err)
				}
			}
			info, err := os.Stat(filepath.Join(dir, "usr/bin/prog"))
			if err != nil || info.Mode() != fs.ModeSetuid|0o755 {
				t.Errorf("mode of prog: got %v, %v, want the package's, for the lint to see", info.Mode(), err)
			}
			if got, err := os.Readlink(filepath.Join(dir, "usr/bin/link")); err != nil || got != "/etc/absolute" {
				t.Errorf("link: got %q, %v", got, err)
			}
		})
	}
}

func TestUnpackRefuses(t *testing.T) {
	whole := debOf("", sample(t))
	for _, c := range []struct {
		name string
		deb  []byte
		want string
	}{
		{"no ar", []byte("PK\x03\x04 and more"), "no ar archive"},
		{"empty", nil, "no ar archive"},
		{"no data", append([]byte(arMagic), member("debian-binary", []byte("2.0\n"))...), "no data.tar"},
		{"bad header", append([]byte(arMagic), bytes.Repeat([]byte("x"), 60)...), "end mark"},
		{"bad size", append([]byte(arMagic), fmt.Appendf(nil, "%-48s%-10s`\n", "data.tar", "-5")...), "no size"},
		{"unknown compression", debOf(".lzo", nil), "not known"},
		{"cut", whole[:len(whole)-2048], "unexpected EOF"},
		{"climbs out", debOf("", tarOf(t, tar.Header{Name: "../evil", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"KEELSON.content": "x"}})), "escapes"},
		{"through a link", debOf("", tarOf(t, tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "/tmp"},
			tar.Header{Name: "out/evil", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"KEELSON.content": "x"}})), "escapes"},
		{"device", debOf("", tarOf(t, tar.Header{Name: "dev", Typeflag: tar.TypeChar})), "not for a package"},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := t.TempDir()
			dir := filepath.Join(base, "out")
			err := Unpack(bytes.NewReader(c.deb), dir)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Unpack: got %v, want an error with %q", err, c.want)
			}
			if left, _ := os.ReadDir(base); len(left) != 0 {
				t.Errorf("Unpack left %v behind", left)
			}
		})
	}
}

// TestDpkgDeb unpacks what Debian's own tool has packed.
func TestDpkgDeb(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("dpkg-deb is not installed")
	}
	src := t.TempDir()
	for name, text := range map[string]string{"DEBIAN/control": "Package: t\nVersion: 1\nArchitecture: all\nMaintainer: t <t@test>\nDescription: t\n", "usr/share/t/file": "hello\n"} {
		file := filepath.Join(src, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(src, 0o755); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "t.deb")
	if text, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", src, out).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v: %s", err, text)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := filepath.Join(t.TempDir(), "out")
	if err := Unpack(f, dir); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "usr/share/t/file")); err != nil || string(got) != "hello\n" {
		t.Errorf("file: got %q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "DEBIAN")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("control files were unpacked: %v", err)
	}
}

func FuzzData(f *testing.F) {
	f.Add(debOf("", []byte("x")))
	f.Add([]byte(arMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Data(bytes.NewReader(b))
		if err != nil {
			return
		}
		// Reading on may fail, never panic; the bound keeps bombs short.
		_, _ = io.CopyN(io.Discard, r, 1<<16)
	})
}
