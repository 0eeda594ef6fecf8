package erofs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"keelson/imagebuild/tree"

	"github.com/erofs/go-erofs"
)

func stamp() time.Time { return time.Unix(1_700_000_000, 0) }

func sample(t *testing.T) *tree.Tree {
	t.Helper()
	var tr tree.Tree
	big := bytes.Repeat([]byte("0123456789abcdef"), 5000)
	errs := []error{
		tr.Add(tree.Entry{Path: "/", Mode: fs.ModeDir | 0o755}),
		tr.Add(tree.Entry{Path: "/usr/bin/ping", Mode: 0o755 | fs.ModeSetuid, UID: 3, GID: 70000,
			Size: 4, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("ping")), nil }}),
		tr.Add(tree.Entry{Path: "/dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1}),
		tr.Add(tree.Entry{Path: "/dev/wide", Mode: fs.ModeDevice | 0o660, Major: 259, Minor: 70000}),
		tr.Add(tree.Entry{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777}),
		tr.Bytes("/usr/share/big", 0o644, big),
		tr.Bytes("/usr/share/page", 0o644, big[:BlockSize]),
		tr.Bytes("/usr/share/empty", 0o600, nil),
		tr.Link("/bin", "usr/bin"),
		tr.Link("/long", strings.Repeat("x/", 2000)+"y"),
	}
	// A directory of several blocks.
	for i := range 400 {
		errs = append(errs, tr.Bytes(fmt.Sprintf("/many/file-with-a-long-name-%04d", i), 0o644, []byte{byte(i)}))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return &tr
}

func write(t *testing.T, tr *tree.Tree, o Options) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "root.erofs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	size, err := Write(f, tr, o)
	if err != nil {
		t.Fatal(err)
	}
	if st, _ := f.Stat(); st.Size() != size || size%BlockSize != 0 {
		t.Fatalf("size: got %d, file has %d", size, st.Size())
	}
	return f
}

func TestReadBack(t *testing.T) {
	f := write(t, sample(t), Options{Time: stamp()})
	img, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	stat := func(p string) *erofs.Stat {
		t.Helper()
		fi, err := fs.Lstat(img, p)
		if err != nil {
			t.Fatal(err)
		}
		if fi.ModTime().Unix() != stamp().Unix() {
			t.Errorf("%s: time: got %v, want %v", p, fi.ModTime(), stamp())
		}
		return fi.Sys().(*erofs.Stat)
	}
	if st := stat("usr/bin/ping"); st.UID != 3 || st.GID != 70000 || st.Mode != 0o755|fs.ModeSetuid {
		t.Errorf("ping: got %v %d:%d", st.Mode, st.UID, st.GID)
	}
	if st := stat("dev/console"); st.Rdev != 5<<8|1 || st.Mode.Type() != fs.ModeDevice|fs.ModeCharDevice {
		t.Errorf("console: got %v %x", st.Mode, st.Rdev)
	}
	if st := stat("dev/wide"); st.Rdev != rdev(259, 70000) {
		t.Errorf("wide: got %x, want %x", st.Rdev, rdev(259, 70000))
	}
	if st := stat("usr"); st.Nlink != 4 {
		t.Errorf("links of /usr: got %d, want 4", st.Nlink)
	}
	if b, err := fs.ReadFile(img, "usr/share/big"); err != nil || len(b) != 80000 || !bytes.HasSuffix(b, []byte("abcdef")) {
		t.Errorf("big: got %d bytes, %v", len(b), err)
	}
	if es, err := fs.ReadDir(img, "many"); err != nil || len(es) != 400 {
		t.Errorf("many: got %d entries, %v", len(es), err)
	}
	if to, err := fs.ReadLink(img, "bin"); err != nil || to != "usr/bin" {
		t.Errorf("bin: got %q, %v", to, err)
	}
}

// The reference tool must find nothing wrong and extract what went in.
func TestFsck(t *testing.T) {
	fsck, err := exec.LookPath("fsck.erofs")
	if err != nil {
		t.Skip("fsck.erofs is absent (Debian: erofs-utils)")
	}
	f := write(t, sample(t), Options{Time: stamp(), UUID: [16]byte{1, 2, 3}})
	out := filepath.Join(t.TempDir(), "x")
	args := []string{f.Name()}
	if os.Getuid() == 0 { // device nodes and owners need root
		args = []string{"--extract=" + out, f.Name()}
	}
	if b, err := exec.Command(fsck, args...).CombinedOutput(); err != nil {
		t.Fatalf("fsck.erofs: %v\n%s", err, b)
	}
	if os.Getuid() != 0 {
		return
	}
	b, err := os.ReadFile(filepath.Join(out, "usr/share/big"))
	if err != nil || sha256.Sum256(b) != sha256.Sum256(bytes.Repeat([]byte("0123456789abcdef"), 5000)) {
		t.Errorf("extracted big: %d bytes, %v", len(b), err)
	}
	if to, err := os.Readlink(filepath.Join(out, "long")); err != nil || len(to) != 4001 {
		t.Errorf("extracted long link: %d bytes, %v", len(to), err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(out, "dev/console"), &st); err == nil && st.Rdev != 5<<8|1 {
		t.Errorf("extracted console: rdev %x", st.Rdev)
	}
}

func TestReproducible(t *testing.T) {
	read := func(o Options) []byte {
		b, err := os.ReadFile(write(t, sample(t), o).Name())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a, b := read(Options{Time: stamp()}), read(Options{Time: stamp()})
	if !bytes.Equal(a, b) {
		t.Error("two images of one tree differ")
	}
	c := read(Options{Time: stamp(), UUID: [16]byte{0xaa, 15: 0xbb}})
	if bytes.Equal(a, c) || c[uuidOffset] != 0xaa || c[uuidOffset+15] != 0xbb {
		t.Errorf("UUID: got %x", c[uuidOffset:uuidOffset+16])
	}
}

func TestWriteReportsSources(t *testing.T) {
	for _, c := range []struct {
		name, content string
		size          int64
		err           error
		want          string
	}{
		{"short", "abc", 10, nil, "size changed"},
		{"short over a block", strings.Repeat("a", 5000), 9000, nil, "short read"},
		{"long", "abcdef", 3, nil, "size changed"},
		{"absent", "", 3, os.ErrNotExist, "not exist"},
		{"empty after all", "", 3, nil, "size changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var tr tree.Tree
			if err := tr.Add(tree.Entry{Path: "/f", Mode: 0o644, Size: c.size, Open: func() (io.ReadCloser, error) {
				return io.NopCloser(strings.NewReader(c.content)), c.err
			}}); err != nil {
				t.Fatal(err)
			}
			f, err := os.Create(filepath.Join(t.TempDir(), "x"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			_, err = Write(f, &tr, Options{Time: stamp()})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "erofs: ") {
				t.Errorf("got %v, want one with %q", err, c.want)
			}
		})
	}
	var tr tree.Tree
	if _, err := Write(nil, &tr, Options{Time: time.Unix(-1, 0)}); err == nil {
		t.Error("time before 1970: got no error")
	}
}

// Nothing but the file system's own records may be held: 64 MiB go through
// with a fraction of that allocated.
func TestStreams(t *testing.T) {
	var tr tree.Tree
	const size = 64 << 20
	if err := tr.Add(tree.Entry{Path: "/zero", Mode: 0o644, Size: size, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(zeros{}, size)), nil
	}}); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Write(f, &tr, Options{Time: stamp()}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("allocated %d bytes for a file of %d", got, size)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
