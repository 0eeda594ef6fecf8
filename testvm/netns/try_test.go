package netns

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is tried leaves nothing behind, and what a host forbids is named.
func TestTry(t *testing.T) {
	f := newFixture(t)
	dir := filepath.Join(t.TempDir(), "try")
	if err := Try(dir, filepath.Join(f.dir, "nsinit"), f.root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", dir, err)
	}
	err := Try(dir, filepath.Join(f.dir, "nsinit"), &Root{path: filepath.Join(f.dir, "no-device")})
	if err == nil || !strings.Contains(err.Error(), "this host does not let machines run: mount the image's root (erofs)") {
		t.Errorf("without a root: got %v", err)
	}
	if err := Try(dir, filepath.Join(f.dir, "no-program"), f.root); err == nil {
		t.Error("a machine without a program was made")
	}
}

// An image of another architecture has no machines here.
func TestTryProgram(t *testing.T) {
	own, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, c := range []struct {
		name, want string
		change     func([]byte) []byte
	}{
		{"the same", "", func(b []byte) []byte { return b }},
		// e_machine, 2 bytes at 18: elf(5).
		{"another", "EM_RISCV", func(b []byte) []byte { b[18], b[19] = byte(elf.EM_RISCV), 0; return b }},
		{"no program", "bad magic number", func([]byte) []byte { return []byte("#!/bin/sh, and a long line behind it") }},
	} {
		file := filepath.Join(dir, c.name)
		if err := os.WriteFile(file, c.change(bytes.Clone(own)), 0o755); err != nil {
			t.Fatal(err)
		}
		err := tryProgram("/proc/self/exe", file)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	if err := tryProgram("/proc/self/exe", filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: got %v", err)
	}
}
