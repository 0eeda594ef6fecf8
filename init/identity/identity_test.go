package identity

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMachineIDIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "machine-id")
	first, err := EnsureMachineID(path)
	if err != nil || !regexp.MustCompile(`^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$`).MatchString(first) {
		t.Fatalf("got %q, %v", first, err)
	}
	again, err := EnsureMachineID(path)
	if err != nil || again != first {
		t.Errorf("second boot: got %q, %v, want %q", again, err, first)
	}
	if err := os.WriteFile(path+"2", []byte("garbage\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureMachineID(path + "2"); err == nil || !strings.Contains(err.Error(), "32 hexadecimal") {
		t.Errorf("garbage: got %v, want an error, for a new id would make another node of this one", err)
	}
}

func TestHostname(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	path := filepath.Join(t.TempDir(), "hostname")
	for i, c := range []struct{ given, want string }{
		{"", "keelson-01234567"}, {"cp-1", "cp-1"}, {"", "cp-1"}, {"cp-2", "cp-2"},
	} {
		if got, err := EnsureHostname(path, c.given, id); err != nil || got != c.want {
			t.Errorf("boot %d: got %q, %v, want %q", i, got, err, c.want)
		}
	}
	if err := os.WriteFile(path, []byte("Not A Name\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := EnsureHostname(path, "", id); err != nil || got != "keelson-01234567" {
		t.Errorf("kept garbage: got %q, %v", got, err)
	}
}

func TestSeedChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seed")
	var last string
	for range 2 {
		if err := SaveSeed(path); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) != seedSize || string(b) == last {
			t.Errorf("got %d bytes, %v, the same as before: %v", len(b), err, string(b) == last)
		}
		last = string(b)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
}

// A seed counts once: the next boot has another, whatever became of the old one.
func TestLoadSeed(t *testing.T) {
	for _, c := range []struct {
		name string
		old  []byte // none where nil
	}{
		{"first boot", nil},
		{"of the boot before", bytes.Repeat([]byte{7}, seedSize)},
		{"cut short", []byte("cut")},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "seed")
			if c.old != nil {
				if err := os.WriteFile(path, c.old, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := LoadSeed(path)
			if errors.Is(err, unix.EPERM) {
				if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the old seed: got %v, want it gone before it is tried", err)
				}
				t.Skipf("SKIPPED: the kernel takes no seed here: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil || len(b) != seedSize || bytes.Equal(b, c.old) {
				t.Errorf("got %d bytes, %v, want a new seed", len(b), err)
			}
		})
	}
	if err := LoadSeed(t.TempDir()); err == nil || !strings.Contains(err.Error(), "read random seed: ") {
		t.Errorf("a folder in its place: got %v, want an error", err)
	}
}
