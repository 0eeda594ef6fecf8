package zst

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"testing"
	"testing/iotest"

	"keelson/imagebuild/cloud/diskfixture"
)

func write(t *testing.T, raw []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestZstdReadsTheSame(t *testing.T) {
	for name, raw := range map[string][]byte{
		"nothing": nil, "one byte": {1}, "one chunk": diskfixture.Disk(chunk), "more than a window": diskfixture.Disk(window + 3<<20),
	} {
		t.Run(name, func(t *testing.T) {
			packed := diskfixture.File(t, "disk.zst", write(t, raw))
			back := packed + ".raw"
			diskfixture.Tool(t, "zstd", "zstd", "-q", "-d", "-o", back, packed)
			if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, raw) {
				t.Errorf("zstd -d: %d bytes, %v, want %d", len(got), err, len(raw))
			}
		})
	}
}

// What is there twice, 20 MiB apart, is stored once.
func TestReachesFar(t *testing.T) {
	raw := diskfixture.Disk(2 << 20)
	twice := bytes.Join([][]byte{raw, make([]byte, 20<<20), raw}, nil)
	if once, both := len(write(t, raw)), len(write(t, twice)); both > once+once/10 {
		t.Errorf("once: %d bytes, twice: %d", once, both)
	}
}

func TestReproducible(t *testing.T) {
	raw := diskfixture.Disk(window + 5)
	a := write(t, raw)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if !bytes.Equal(a, write(t, raw)) {
		t.Error("the number of processors changes the bytes")
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestErrors(t *testing.T) {
	bad := errors.New("bad")
	if err := Write(io.Discard, iotest.ErrReader(bad)); !errors.Is(err, bad) {
		t.Errorf("Write: got %v, want what reading said", err)
	}
	if err := Write(full{}, bytes.NewReader(diskfixture.Disk(3<<20))); err == nil {
		t.Error("Write without room: got no error")
	}
}
