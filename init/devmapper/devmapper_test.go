package devmapper

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"keelson/init/layout"
)

func verity(t testing.TB) layout.Verity {
	t.Helper()
	v, err := layout.ParseVerity(strings.Repeat("ab", 32) + ":16:" + strings.Repeat("cd", 32))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVerityTarget(t *testing.T) {
	got := VerityTarget("/dev/vda3", verity(t))
	want := Target{Type: "verity", Sectors: 128, Params: "1 /dev/vda3 /dev/vda3 4096 4096 16 17 sha256 " + strings.Repeat("ab", 32) + " " + strings.Repeat("cd", 32)}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestRequest(t *testing.T) {
	b, err := request("keelson-root", "uuid", flagRO, &Target{Type: "verity", Params: "1 a b", Sectors: 128})
	if err != nil {
		t.Fatal(err)
	}
	le := binary.NativeEndian
	if le.Uint32(b[0:]) != 4 || int(le.Uint32(b[offDataSz:])) != len(b) || le.Uint32(b[offStart:]) != ioctlSize || le.Uint32(b[offTargets:]) != 1 || le.Uint32(b[offFlags:]) != flagRO {
		t.Errorf("header: % x", b[:offDevNo])
	}
	if !bytes.HasPrefix(b[offName:], []byte("keelson-root\x00")) || !bytes.HasPrefix(b[offUUID:], []byte("uuid\x00")) {
		t.Error("name or uuid is not at its place")
	}
	spec := b[ioctlSize:]
	if le.Uint64(spec[8:]) != 128 || !bytes.HasPrefix(spec[24:], []byte("verity\x00")) || !bytes.HasPrefix(spec[specSize:], []byte("1 a b\x00")) || len(b)%8 != 0 {
		t.Errorf("target: %q", spec)
	}
	if _, err := request(strings.Repeat("x", 200), "", 0, nil); err == nil {
		t.Error("name of 200 bytes: got no error")
	}
}

// A tree of veritysetup's own making is taken, and everything else is not.
func TestCheckSuperblock(t *testing.T) {
	if _, err := exec.LookPath("veritysetup"); err != nil {
		t.Skip("veritysetup (package cryptsetup-bin) is not installed")
	}
	file := filepath.Join(t.TempDir(), "root")
	if err := os.WriteFile(file, make([]byte, 16*4096), 0o600); err != nil {
		t.Fatal(err)
	}
	v := verity(t)
	out, err := exec.Command("veritysetup", "format", "--data-blocks=16", "--hash-offset=65536", "--hash=sha256",
		"--salt="+hex.EncodeToString(v.Salt), file, file).CombinedOutput()
	if err != nil {
		t.Fatalf("veritysetup: %v\n%s", err, out)
	}
	hash := regexp.MustCompile(`Root hash:\s+([0-9a-f]{64})`).FindSubmatch(out)
	if v.RootHash, err = hex.DecodeString(string(hash[1])); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckSuperblock(bytes.NewReader(b), v); err != nil {
		t.Errorf("veritysetup's tree: %v", err)
	}
	for name, off := range map[string]int{"signature": 0, "algorithm": 33, "block size": 65, "blocks": 72, "salt": 90} {
		broken := bytes.Clone(b)
		broken[65536+off] ^= 1
		if err := CheckSuperblock(bytes.NewReader(broken), v); err == nil {
			t.Errorf("changed %s: got no error", name)
		}
	}
	if err := CheckSuperblock(bytes.NewReader(b[:65536]), v); err == nil {
		t.Error("no tree at all: got no error")
	}
}

func FuzzCheckSuperblock(f *testing.F) {
	v := verity(f)
	f.Add(append([]byte("verity\x00\x00"), make([]byte, 504)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		CheckSuperblock(bytes.NewReader(append(make([]byte, v.HashOffset()), b...)), v)
	})
}

func TestCorruption(t *testing.T) {
	cases := []struct {
		name, line, device, what string
		ok                       bool
	}{
		{"data", "device-mapper: verity: 253:3: data block 749 is corrupted", "253:3", "data block 749 is corrupted", true},
		{"tree", "device-mapper: verity: 253:3: metadata block 33621 is corrupted\n", "253:3", "metadata block 33621 is corrupted", true},
		{"other message", "device-mapper: verity: sha256 using implementation sha256-generic", "", "", false},
		{"other target", "device-mapper: crypt: 253:3: data block 1 is corrupted", "", "", false},
		{"nothing", "", "", "", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			device, what, ok := Corruption(c.line)
			if ok != c.ok || device != c.device || what != c.what {
				t.Errorf("got %q, %q, %v", device, what, ok)
			}
		})
	}
}

func TestLinearTarget(t *testing.T) {
	got := LinearTarget("/dev/sr0", 1<<20, 8192)
	if want := (Target{Type: "linear", Sectors: 16, Params: "/dev/sr0 2048"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
