package verity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"keelson/init/layout"
)

func data(t *testing.T, blocks int) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	b := make([]byte, blocks*blockSize)
	r := rand.NewChaCha8([32]byte{byte(blocks)})
	r.Read(b)
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	return f
}

func uuidText(id [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// One block, a full hash block, one more than it, three levels, and sizes
// around a worker's span.
func sizes() []int {
	return []int{1, 2, 127, 128, 129, 256, 257, 128*128 - 1, 128*128 + 1}
}

func TestSameAsVeritysetup(t *testing.T) {
	tool, err := exec.LookPath("veritysetup")
	if err != nil {
		t.Skip("veritysetup is absent (Debian: cryptsetup-bin)")
	}
	for _, blocks := range sizes() {
		t.Run(fmt.Sprint(blocks), func(t *testing.T) {
			f := data(t, blocks)
			theirs := filepath.Join(t.TempDir(), "theirs")
			b, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(theirs, b, 0o600); err != nil {
				t.Fatal(err)
			}
			o := Derive([]byte("seed"))
			size := int64(blocks * blockSize)
			got, err := Append(f, size, o)
			if err != nil {
				t.Fatal(err)
			}
			offset := fmt.Sprintf("--hash-offset=%d", size)
			out, err := exec.Command(tool, "format", "--salt", fmt.Sprintf("%x", o.Salt), "--uuid", uuidText(o.UUID),
				offset, "--data-blocks", fmt.Sprint(blocks), theirs, theirs).CombinedOutput()
			if err != nil {
				t.Fatalf("veritysetup format: %v\n%s", err, out)
			}
			root := regexp.MustCompile(`Root hash:\s+([0-9a-f]{64})`).FindSubmatch(out)
			if root == nil || fmt.Sprintf("%x", got.RootHash) != string(root[1]) {
				t.Errorf("root hash: got %x, want %s", got.RootHash, out)
			}
			ours, _ := os.ReadFile(f.Name())
			want, _ := os.ReadFile(theirs)
			// veritysetup leaves the rest of the superblock's block unwritten
			// when there is no level behind it.
			want = append(want, make([]byte, max(0, len(ours)-len(want)))...)
			if !bytes.Equal(ours, want) {
				t.Errorf("files differ: %d and %d bytes", len(ours), len(want))
			}
			if int64(len(ours)) != got.Size {
				t.Errorf("size: got %d, file has %d", got.Size, len(ours))
			}
			if out, err := exec.Command(tool, "verify", offset, f.Name(), f.Name(), fmt.Sprintf("%x", got.RootHash)).CombinedOutput(); err != nil {
				t.Errorf("veritysetup verify: %v\n%s", err, out)
			}
		})
	}
}

// A flipped byte anywhere in the data gives another root.
func TestEveryBlockCounts(t *testing.T) {
	f := data(t, 300)
	o := Derive(nil)
	want, err := Append(f, 300*blockSize, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range []int64{0, 127, 128, 299} {
		var b [1]byte
		at := block*blockSize + 4095
		if _, err := f.ReadAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		f.WriteAt([]byte{b[0] ^ 1}, at)
		got, err := Append(f, 300*blockSize, o)
		f.WriteAt(b[:], at)
		if err != nil || bytes.Equal(got.RootHash, want.RootHash) {
			t.Errorf("block %d flipped: root hash is the same (%v)", block, err)
		}
	}
}

func TestDerive(t *testing.T) {
	a, b := Derive([]byte("a")), Derive([]byte("b"))
	if a == b || a.UUID == b.UUID || a.Salt == b.Salt {
		t.Error("two seeds give the same salt or UUID")
	}
	if a != Derive([]byte("a")) {
		t.Error("one seed gives two results")
	}
	if a.UUID[6]>>4 != 8 || a.UUID[8]>>6 != 2 {
		t.Errorf("UUID %s: want version 8, variant 10", uuidText(a.UUID))
	}
}

func TestRead(t *testing.T) {
	f := data(t, 130)
	o := Derive([]byte("x"))
	tr, err := Append(f, 130*blockSize, o)
	if err != nil {
		t.Fatal(err)
	}
	v, id, err := Read(f, 130*blockSize)
	if err != nil || id != o.UUID || !bytes.Equal(v.Salt, o.Salt[:]) || v.DataBlocks != 130 {
		t.Errorf("Read: got %+v, %x, %v", v, id, err)
	}
	if _, _, err := Read(f, 129*blockSize); err == nil {
		t.Error("Read at the wrong place: got no error")
	}
	// What the kernel command line says must survive init's own parser.
	if back, err := layout.ParseVerity(tr.String()); err != nil || !bytes.Equal(back.RootHash, tr.RootHash) {
		t.Errorf("ParseVerity(%s): %v", tr.String(), err)
	}
}

type failing struct{ at int64 }

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off <= f.at && f.at < off+int64(len(p)) {
		return 0, errors.New("bad sector")
	}
	return len(p), nil
}
func (failing) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

func TestAppendRefuses(t *testing.T) {
	for _, size := range []int64{0, -4096, 4095} {
		if _, err := Append(failing{-1}, size, Options{}); err == nil {
			t.Errorf("size %d: got no error", size)
		}
	}
	if _, err := Append(failing{40 << 20}, 64<<20, Options{}); err == nil {
		t.Error("read error: got no error")
	}
	if _, err := Append(data(t, 1), 2*blockSize, Options{}); !errors.Is(err, io.EOF) {
		t.Errorf("short file: got %v, want EOF", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(superblock(7, Derive(nil)))
	f.Add([]byte("verity\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, id, err := parse(b)
		if err != nil {
			return
		}
		o := Options{UUID: id}
		copy(o.Salt[:], v.Salt)
		if v2, id2, err := parse(superblock(v.DataBlocks, o)); err != nil || id2 != id || v2.DataBlocks != v.DataBlocks {
			t.Fatalf("does not survive a round trip: %v", err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	const size = 64 << 20
	b.SetBytes(size)
	for b.Loop() {
		if _, err := Append(failing{-1}, size, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
