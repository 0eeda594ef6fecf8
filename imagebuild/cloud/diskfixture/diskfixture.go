// Package diskfixture makes small raw disks to test the writers of image
// formats with, and runs the reference tools on what they wrote. Only tests
// import it.
package diskfixture

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Disk is a raw disk of size bytes: text that compresses, noise that does not,
// single bytes at block borders, and holes between them.
func Disk(size int) []byte {
	b := make([]byte, size)
	noise := make([]byte, 300_000)
	rand.NewChaCha8([32]byte{7}).Read(noise)
	text := bytes.Repeat([]byte("keelson "), 20_000)
	for at := 0; at < size; at += 1 << 20 {
		switch at >> 20 % 5 {
		case 0:
			copy(b[min(at+1000, size):], text)
		case 1:
			copy(b[min(at+65536-7, size):], noise)
		case 2:
			copy(b[min(at+65535, size):], []byte{1, 2})
		}
	}
	b[size-1] = 9
	return b
}

// File puts content into a file of the test.
func File(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Create makes an empty file of the test, which is closed with it.
func Create(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Tool runs a reference tool; the test is skipped where it is absent.
func Tool(t *testing.T, pkg, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("SKIPPED: %s is absent (Debian: %s)", name, pkg)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// SameAs compares what qemu-img reads from an image with a raw disk.
func SameAs(t *testing.T, format, image string, want []byte) {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "back.raw")
	Tool(t, "qemu-utils", "qemu-img", "convert", "-f", format, "-O", "raw", image, raw)
	got, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("qemu-img reads another disk from the %s: %d bytes, want %d", format, len(got), len(want))
	}
}
