package cpio

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"keelson/imagebuild/tree"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
)

func sample(t *testing.T) *tree.Tree {
	t.Helper()
	var tr tree.Tree
	err := errors.Join(
		tr.Bytes("/init", 0o755, bytes.Repeat([]byte("init"), 100_000)),
		tr.Bytes("/lib/modules/6.12/empty", 0o644, nil),
		tr.Link("/bin", "usr/bin"),
		tr.Add(tree.Entry{Path: "/dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1}),
		tr.Add(tree.Entry{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777, UID: 1, GID: 2}),
	)
	if err != nil {
		t.Fatal(err)
	}
	return &tr
}

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, sample(t)); err != nil {
		t.Fatal(err)
	}
	recs, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(b.Bytes())))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]cpio.Record{}
	var names []string
	for _, r := range recs {
		got[r.Name] = r
		names = append(names, r.Name)
	}
	if want := "bin dev dev/console init lib lib/modules lib/modules/6.12 lib/modules/6.12/empty tmp"; strings.Join(names, " ") != want {
		t.Errorf("names: got %v, want %s", names, want)
	}
	if r := got["dev/console"]; r.Mode != cpio.S_IFCHR|0o600 || r.Rmajor != 5 || r.Rminor != 1 {
		t.Errorf("console: got %v", r.Info)
	}
	if r := got["tmp"]; r.Mode != cpio.S_IFDIR|cpio.S_ISVTX|0o777 || r.UID != 1 || r.GID != 2 {
		t.Errorf("tmp: got %v", r.Info)
	}
	if r := got["init"]; r.FileSize != 400_000 || r.MTime != 0 || r.Mode != cpio.S_IFREG|0o755 {
		t.Errorf("init: got %v", r.Info)
	}
}

// GNU cpio must list and extract the same.
func TestGNUCpioReads(t *testing.T) {
	tool, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("cpio is absent (Debian: cpio)")
	}
	var b bytes.Buffer
	if err := Write(&b, sample(t)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool, "--quiet", "-itv")
	cmd.Stdin = &b
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	for _, want := range []string{"400000", "bin -> usr/bin", "5,   1", "drwxrwxrwt", "lib/modules/6.12/empty"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("cpio -tv: no %q in\n%s", want, out)
		}
	}
}

func TestZstd(t *testing.T) {
	var plain, a, b bytes.Buffer
	if err := errors.Join(Write(&plain, sample(t)), WriteZstd(&a, sample(t))); err != nil {
		t.Fatal(err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if err := WriteZstd(&b, sample(t)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("archives made with all cores and with one differ")
	}
	var h zstd.Header
	if err := h.Decode(a.Bytes()); err != nil || h.WindowSize > window {
		t.Errorf("window: got %d (%v), the kernel takes %d", h.WindowSize, err, window)
	}
	r, err := zstd.NewReader(&a)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, plain.Bytes()) {
		t.Errorf("decompressed: %d bytes, %v, want %d", len(got), err, plain.Len())
	}
}

// A file that is too large to be held in memory is archived like any other.
func TestLargeFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "large")
	content := bytes.Repeat([]byte("0123456789abcdef"), large/16+1)
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
	var fromFile, fromMemory tree.Tree
	if err := errors.Join(fromFile.File("/large", 0o400, name), fromMemory.Bytes("/large", 0o400, content)); err != nil {
		t.Fatal(err)
	}
	var got, want bytes.Buffer
	if err := errors.Join(Write(&got, &fromFile), Write(&want, &fromMemory)); err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("got %d bytes, %v, want the %d of the same in memory", got.Len(), err, want.Len())
	}
	if err := os.WriteFile(name, content[1:], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(io.Discard, &fromFile); err == nil || !strings.Contains(err.Error(), "/large: size changed") {
		t.Errorf("a file that changed: got %v", err)
	}
}

func TestWriteReportsSources(t *testing.T) {
	for name, size := range map[string]int64{"short": 9, "long": 2} {
		var tr tree.Tree
		if err := tr.Add(tree.Entry{Path: "/f", Mode: 0o644, Size: size, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("abc")), nil
		}}); err != nil {
			t.Fatal(err)
		}
		for _, write := range []func(io.Writer, *tree.Tree) error{Write, WriteZstd} {
			if err := write(io.Discard, &tr); err == nil || !strings.Contains(err.Error(), "/f: size changed") {
				t.Errorf("%s: got %v, want one about the size", name, err)
			}
		}
	}
	boom := errors.New("boom")
	var tr tree.Tree
	if err := tr.Add(tree.Entry{Path: "/f", Size: 1, Open: func() (io.ReadCloser, error) { return nil, boom }}); err != nil {
		t.Fatal(err)
	}
	if err := Write(io.Discard, &tr); !errors.Is(err, boom) {
		t.Errorf("opener's error: got %v", err)
	}
}
