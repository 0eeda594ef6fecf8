package qcow2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"keelson/imagebuild/cloud/diskfixture"
)

func write(t *testing.T, raw []byte) string {
	t.Helper()
	f := diskfixture.Create(t, "disk.qcow2")
	if err := Write(context.Background(), f, bytes.NewReader(raw), int64(len(raw))); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func TestQemuReadsTheSameDisk(t *testing.T) {
	for _, size := range []int{512, cluster, cluster + 512, 12<<20 - 1024, 16 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			raw := make([]byte, size)
			if size > 1<<20 {
				raw = diskfixture.Disk(size)
			} else {
				raw[size-1] = 3
			}
			image := write(t, raw)
			out := diskfixture.Tool(t, "qemu-utils", "qemu-img", "check", "-f", "qcow2", image)
			if !strings.Contains(out, "No errors were found") {
				t.Errorf("qemu-img check: %s", out)
			}
			diskfixture.SameAs(t, "qcow2", image, raw)
		})
	}
}

// A disk with more than one table of level 2 (512 MiB each), nearly all a hole.
func TestSeveralTables(t *testing.T) {
	const size = 512<<20 + 2*cluster
	raw := diskfixture.Create(t, "disk.raw")
	if err := raw.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 512<<20 - 1, 512 << 20, size - 1} {
		if _, err := raw.WriteAt([]byte{0xab}, at); err != nil {
			t.Fatal(err)
		}
	}
	f := diskfixture.Create(t, "disk.qcow2")
	if err := Write(context.Background(), f, raw, size); err != nil {
		t.Fatal(err)
	}
	if out := diskfixture.Tool(t, "qemu-utils", "qemu-img", "check", "-f", "qcow2", f.Name()); !strings.Contains(out, "No errors were found") {
		t.Errorf("qemu-img check: %s", out)
	}
	out := diskfixture.Tool(t, "qemu-utils", "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw.Name(), f.Name())
	if !strings.Contains(out, "identical") {
		t.Errorf("qemu-img compare: %s", out)
	}
	if st, err := f.Stat(); err != nil || st.Size() > 10*cluster {
		t.Errorf("four clusters with a byte each take %d bytes, %v", st.Size(), err)
	}
}

func TestSmallerThanTheDiskAndReproducible(t *testing.T) {
	raw := diskfixture.Disk(16 << 20)
	a, err := os.ReadFile(write(t, raw))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(write(t, raw))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("two images of the same disk differ")
	}
	// Three times noise of 300 kB, which is kept as it is, and little else.
	if len(a) > 2<<20 {
		t.Errorf("the image takes %d bytes", len(a))
	}
}

type full struct{}

func (full) WriteAt([]byte, int64) (int, error) { return 0, errors.New("no space") }

func TestRefuses(t *testing.T) {
	some := bytes.NewReader(bytes.Repeat([]byte{1}, 4096))
	for _, c := range []struct {
		name string
		size int64
		want string
	}{
		{"nothing", 0, "no positive multiple"},
		{"part of a sector", 513, "no positive multiple"},
		{"too large", 1 << 50, "larger than"},
		{"shorter than it should be", 8192, "EOF"},
		{"no room", 4096, "no space"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := Write(context.Background(), full{}, some, c.size); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Write: got %v, want an error with %q", err, c.want)
			}
		})
	}
}
