package vhd

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"keelson/imagebuild/cloud/diskfixture"
)

func options() Options {
	return Options{Time: time.Unix(1_700_000_000, 0), UUID: [16]byte{1, 2, 3}}
}

func write(t *testing.T, raw []byte) string {
	t.Helper()
	f := diskfixture.Create(t, "disk.vhd")
	size, err := Write(f, bytes.NewReader(raw), int64(len(raw)), options())
	if err != nil {
		t.Fatal(err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != size || size%mib != footerLen {
		t.Errorf("file: %d bytes, %v, want %d, which is whole MiB and a footer", st.Size(), err, size)
	}
	return f.Name()
}

func TestQemuReadsTheSameDisk(t *testing.T) {
	raw := diskfixture.Disk(8<<20 - 512) // becomes 8 MiB
	image := write(t, raw)
	diskfixture.SameAs(t, "vpc", image, append(raw, make([]byte, 512)...))
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	out := diskfixture.Tool(t, "qemu-utils", "qemu-img", "info", "-f", "vpc", "--output=json", image)
	if err := json.Unmarshal([]byte(out), &info); err != nil || info.Size != 8<<20 {
		t.Errorf("qemu-img info: size %d, %v, want whole MiB", info.Size, err)
	}
}

func TestFooter(t *testing.T) {
	b := footer(8<<20, options())
	be := binary.BigEndian
	if got, want := be.Uint32(b[24:]), uint32(1_700_000_000-946_684_800); got != want {
		t.Errorf("time: got %d, want %d", got, want)
	}
	sum, was := uint32(0), be.Uint32(b[64:])
	copy(b[64:], make([]byte, 4))
	for _, c := range b {
		sum += uint32(c)
	}
	if ^sum != was {
		t.Errorf("checksum: got %x, want %x", was, ^sum)
	}
	if be.Uint32(b[60:]) != 2 || be.Uint64(b[16:]) != 1<<64-1 || be.Uint64(b[40:]) != 8<<20 {
		t.Errorf("footer does not describe a fixed disk: %x", b[:84])
	}
}

// The first three are computed by hand from the specification's appendix, the
// last is the largest that a geometry can say.
func TestGeometry(t *testing.T) {
	for _, c := range []struct{ sectors, cylinders, heads, perTrack int64 }{
		{8 << 11, 240, 4, 17},    // 8 MiB
		{412 << 11, 837, 16, 63}, // 412 MiB
		{1 << 21, 2080, 16, 63},  // 1 GiB
		{1 << 40, 65535, 16, 255},
	} {
		cylinders, heads, perTrack := geometry(c.sectors)
		if cylinders != c.cylinders || heads != c.heads || perTrack != c.perTrack {
			t.Errorf("geometry(%d): got %d/%d/%d, want %d/%d/%d", c.sectors, cylinders, heads, perTrack, c.cylinders, c.heads, c.perTrack)
		}
	}
}

func TestHolesAndReproducible(t *testing.T) {
	raw := diskfixture.Disk(16 << 20)
	a, b := write(t, raw), write(t, raw)
	one, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Error("two images of the same disk differ")
	}
	var st syscall.Stat_t
	if err := syscall.Stat(a, &st); err != nil {
		t.Fatal(err)
	}
	if used := st.Blocks * 512; used > 3<<20 {
		t.Errorf("a disk with 2 MiB of content takes %d bytes", used)
	}
}

func TestRefuses(t *testing.T) {
	f := diskfixture.Create(t, "disk.vhd")
	for _, c := range []struct {
		name string
		size int64
		want string
	}{
		{"nothing", 0, "a disk of 0 bytes"},
		{"shorter than it should be", 8192, "EOF"},
	} {
		if _, err := Write(f, bytes.NewReader(make([]byte, 4096)), c.size, options()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	f.Close()
	if _, err := Write(f, bytes.NewReader([]byte{1}), 1, options()); err == nil {
		t.Error("Write to a closed file: got no error")
	}
}
