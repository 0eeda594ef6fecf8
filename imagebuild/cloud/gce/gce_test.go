package gce

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"keelson/imagebuild/cloud/diskfixture"
	"keelson/imagebuild/cloud/sparse"
)

func write(t *testing.T, raw []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(context.Background(), &out, bytes.NewReader(raw), int64(len(raw)), time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// islands is a disk with n pieces of data, apart from each other.
func islands(n int) []byte {
	b := make([]byte, (2*n+1)*block)
	for i := range n {
		b[2*i*block+17] = byte(i%255) + 1
	}
	return b
}

// begins compares the beginning of a file of a GiB, and that nothing is behind it.
func begins(t *testing.T, r io.Reader, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("disk.raw is not the disk")
	}
	buf, length := make([]byte, 1<<20), int64(len(want))
	zero := make([]byte, len(buf))
	for {
		n, err := r.Read(buf)
		if !bytes.Equal(buf[:n], zero[:n]) {
			t.Fatal("something stands behind the disk")
		}
		length += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if length != gib {
		t.Errorf("disk.raw has %d bytes, want a GiB", length)
	}
}

func TestTarReadsTheSameDisk(t *testing.T) {
	for title, raw := range map[string][]byte{
		"ordinary": diskfixture.Disk(12 << 20), "empty": make([]byte, 4096), "four ranges": islands(3), "five ranges": islands(4),
		"25 ranges": islands(24), "26 ranges": islands(25), "many ranges": islands(300),
	} {
		t.Run(title, func(t *testing.T) {
			packed := write(t, raw)
			dir := t.TempDir()
			archive := filepath.Join(dir, "disk.tar.gz")
			if err := os.WriteFile(archive, packed, 0o644); err != nil {
				t.Fatal(err)
			}
			if out := diskfixture.Tool(t, "tar", "tar", "-C", dir, "-xzvvf", archive); !strings.Contains(out, "root/root") || strings.Contains(out, "arning") {
				t.Errorf("tar: %s", out)
			}
			f, err := os.Open(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			begins(t, f, raw)
			var st syscall.Stat_t
			if err := syscall.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 > int64(len(raw))+1<<20 {
				t.Errorf("unpacked it takes %d bytes, %v", st.Blocks*512, err)
			}

			if title != "ordinary" {
				return
			}
			// Go's own reader as the second opinion.
			z, err := gzip.NewReader(bytes.NewReader(packed))
			if err != nil {
				t.Fatal(err)
			}
			r := tar.NewReader(z)
			h, err := r.Next()
			if err != nil || h.Name != name || h.Size != gib || h.Typeflag != tar.TypeGNUSparse || h.ModTime.Unix() != 1_700_000_000 {
				t.Fatalf("header: got %+v, %v", h, err)
			}
			begins(t, r, raw)
			if _, err := r.Next(); err != io.EOF {
				t.Errorf("behind disk.raw: got %v, want the end", err)
			}
		})
	}
}

func TestFullDiskHasNoEmptyRange(t *testing.T) {
	all := []sparse.Extent{{Offset: 0, Size: 4096}}
	if got := ranges(all, 4096); len(got) != 1 {
		t.Errorf("a disk without a hole at its end: got %v", got)
	}
	if got := ranges(all, 8192); len(got) != 2 || got[1] != (sparse.Extent{Offset: 8192}) {
		t.Errorf("a disk with a hole at its end: got %v", got)
	}
}

func TestWholeBlocksAndReproducible(t *testing.T) {
	raw := diskfixture.Disk(12 << 20)
	a := write(t, raw)
	z, err := gzip.NewReader(bytes.NewReader(a))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, z); err != nil || n%blocking != 0 {
		t.Errorf("tar of %d bytes, %v, want a multiple of %d", n, err, blocking)
	}
	diskfixture.Tool(t, "gzip", "gzip", "-t", diskfixture.File(t, "d.gz", a))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if !bytes.Equal(a, write(t, raw)) {
		t.Error("the number of processors changes the bytes")
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		size int64
		want string
	}{{0, "no positive multiple"}, {100, "no positive multiple"}, {9 << 30, "9 GiB"}, {8192, "EOF"}} {
		t.Run(fmt.Sprint(c.size), func(t *testing.T) {
			err := Write(context.Background(), io.Discard, bytes.NewReader(make([]byte, 4096)), c.size, time.Time{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Write: got %v, want an error with %q", err, c.want)
			}
		})
	}
}
