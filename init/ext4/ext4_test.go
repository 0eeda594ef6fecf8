package ext4

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"keelson/init/layout"
)

func TestLookSignatures(t *testing.T) {
	for _, s := range signatures() {
		t.Run(s.what, func(t *testing.T) {
			b := make([]byte, lookSize)
			copy(b[s.offset:], s.magic)
			got, err := Look(bytes.NewReader(b))
			if err != nil || got.Kind != Foreign || got.What == "" {
				t.Errorf("got %+v, %v, want foreign", got, err)
			}
		})
	}
}

func TestLookEmptyAndUnknown(t *testing.T) {
	cases := []struct {
		name string
		at   int
		want Kind
	}{
		{"zeros", -1, Empty},
		{"boot block", 100, Foreign},
		{"where the superblock's rest would be", 2000, Foreign},
		{"group descriptors without a superblock: mke2fs did not finish", 4200, Empty},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := make([]byte, lookSize)
			if c.at >= 0 {
				b[c.at] = 7
			}
			if got, err := Look(bytes.NewReader(b)); err != nil || got.Kind != c.want {
				t.Errorf("got %+v, %v, want kind %d", got, err, c.want)
			}
		})
	}
	if _, err := Look(bytes.NewReader(make([]byte, 100))); err == nil {
		t.Error("a partition of 100 bytes: got no error")
	}
}

func FuzzLook(f *testing.F) {
	b := make([]byte, 2048)
	binary.LittleEndian.PutUint16(b[1024+superMagic:], magic)
	copy(b[1024+0x78:], layout.StateFSLabel)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		d := make([]byte, lookSize)
		copy(d, b)
		got, err := Look(bytes.NewReader(d))
		if err == nil && got.Kind == Empty && len(bytes.Trim(d[:blank], "\x00")) > 0 {
			t.Error("data was judged empty")
		}
	})
}

// host runs the tools of the machine the test runs on.
type host struct{ calls []string }

func (h *host) Run(ctx context.Context, argv ...string) (string, int, error) {
	h.calls = append(h.calls, filepath.Base(argv[0]))
	cmd := exec.CommandContext(ctx, filepath.Base(argv[0]), argv[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), exit.ExitCode(), nil
	}
	return string(out), 0, err
}

func disk(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"mke2fs", "e2fsck"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s (package e2fsprogs) is not installed", tool)
		}
	}
	file := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 1<<30); err != nil {
		t.Fatal(err)
	}
	return file
}

func kind(t *testing.T, file string) Found {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := Look(f)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func poke(t *testing.T, file string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// mounted makes the superblock look as if the kernel had mounted it once.
func mounted(t *testing.T, file string) {
	t.Helper()
	// debugfs keeps the superblock's checksum right.
	out, err := exec.Command("debugfs", "-w", "-R", "ssv mnt_count 1", file).CombinedOutput()
	if err != nil {
		t.Skipf("debugfs: %v %s", err, out)
	}
}

func TestEnsureMakesOnceAndChecksAfter(t *testing.T) {
	file, run, ctx := disk(t), &host{}, context.Background()
	got, err := Ensure(ctx, run, file)
	if err != nil || !got.Made {
		t.Fatalf("empty partition: got %+v, %v", got, err)
	}
	if k := kind(t, file); k.Kind != Fresh || k.Bytes != 1<<30 {
		t.Errorf("after mke2fs: got %+v, want a fresh one of 1 GiB", k)
	}
	mounted(t, file)
	if k := kind(t, file); k.Kind != Ours {
		t.Errorf("after the first mount: got %+v", k)
	}
	run.calls = nil
	got, err = Ensure(ctx, run, file)
	if err != nil || got.Made || got.Bytes != 1<<30 || !reflect.DeepEqual(run.calls, []string{"e2fsck"}) {
		t.Errorf("second boot: got %+v, %v, calls %q", got, err, run.calls)
	}
}

func TestEnsureNeverFormatsData(t *testing.T) {
	ctx := context.Background()
	t.Run("broken beyond preening", func(t *testing.T) {
		file, run := disk(t), &host{}
		if _, err := Ensure(ctx, run, file); err != nil {
			t.Fatal(err)
		}
		mounted(t, file)
		poke(t, file, 4096, bytes.Repeat([]byte{0xff}, 8192)) // group descriptors
		before := kind(t, file)
		run.calls = nil
		_, err := Ensure(ctx, run, file)
		if err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Fatalf("got %v, want an error that says damaged", err)
		}
		if got := kind(t, file); got.Kind != before.Kind || len(run.calls) != 1 {
			t.Errorf("got %+v after %q, want the file system left alone", got, run.calls)
		}
	})
	t.Run("foreign label", func(t *testing.T) {
		file, run := disk(t), &host{}
		if _, _, err := run.Run(ctx, "mke2fs", "-q", "-F", "-L", "data", file); err != nil {
			t.Fatal(err)
		}
		run.calls = nil
		_, err := Ensure(ctx, run, file)
		if err == nil || !strings.Contains(err.Error(), `"data"`) || len(run.calls) != 0 {
			t.Errorf("got %v after %q, want an error that names the label", err, run.calls)
		}
	})
}

// mke2fs was cut off: the file system has its superblock but not the rest, and
// was never mounted. Nothing can be lost, so it is made anew.
func TestEnsureFinishesCutMke2fs(t *testing.T) {
	file, run, ctx := disk(t), &host{}, context.Background()
	if _, err := Ensure(ctx, run, file); err != nil {
		t.Fatal(err)
	}
	poke(t, file, 4096, make([]byte, 1<<20))
	got, err := Ensure(ctx, run, file)
	if err != nil || !got.Made {
		t.Fatalf("got %+v, %v, want it made anew", got, err)
	}
	if out, code, _ := run.Run(ctx, "e2fsck", "-fn", file); code != 0 {
		t.Errorf("e2fsck: %d %s", code, out)
	}
}

// fake answers with given exit codes.
type fake struct {
	codes map[string]int
	calls []string
}

func (f *fake) Run(_ context.Context, argv ...string) (string, int, error) {
	f.calls = append(f.calls, argv[0])
	return "some text\nlast line\n", f.codes[argv[0]], nil
}

func TestExitCodes(t *testing.T) {
	cases := []struct {
		name     string
		code     int
		repaired bool
		wantErr  bool
	}{
		{"clean", 0, false, false}, {"corrected", 1, true, false}, {"corrected, reboot", 3, true, false},
		{"left uncorrected", 4, false, true}, {"operational error", 8, false, true}, {"killed", -1, false, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			repaired, err := Check(context.Background(), &fake{codes: map[string]int{layout.E2fsck: c.code}}, "/dev/x")
			if repaired != c.repaired || (err != nil) != c.wantErr {
				t.Errorf("got %v, %v", repaired, err)
			}
			if err != nil && !strings.Contains(err.Error(), "last line") {
				t.Errorf("error without e2fsck's own words: %v", err)
			}
		})
	}
	if err := Make(context.Background(), &fake{codes: map[string]int{layout.Mke2fs: 1}}, "/dev/x"); err == nil {
		t.Error("mke2fs ended with 1: got no error")
	}
}

type memory struct {
	*bytes.Reader
	data []byte
}

func (m *memory) WriteAt(b []byte, off int64) (int, error) { return copy(m.data[off:], b), nil }
func (m *memory) Sync() error                              { return nil }

func TestPrepare(t *testing.T) {
	const start = 1 << 20
	super := func(label string, blocks uint32) []byte {
		b := make([]byte, 1024)
		binary.LittleEndian.PutUint16(b[superMagic:], magic)
		binary.LittleEndian.PutUint32(b[4:], blocks)
		binary.LittleEndian.PutUint32(b[0x18:], 2)
		binary.LittleEndian.PutUint16(b[0x34:], 1)
		copy(b[0x78:], label)
		return b
	}
	cases := []struct {
		name string
		data []byte
		kept bool
	}{
		{"zeros", make([]byte, 1024), true},
		{"old data of another system", []byte(strings.Repeat("data", 256)), false},
		{"another file system", super("data", 16), false},
		{"our state", super(layout.StateFSLabel, 16), true},
		{"our state, larger than the partition", super(layout.StateFSLabel, 1<<20), false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			data := make([]byte, 2<<20)
			copy(data[start+1024:], c.data)
			data[start-1] = 9
			before := bytes.Clone(data)
			m := &memory{bytes.NewReader(data), data}
			if err := Prepare(m, start, 1<<20); err != nil {
				t.Fatal(err)
			}
			if c.kept && !bytes.Equal(data, before) {
				t.Error("the data was touched")
			}
			got, err := Look(bytes.NewReader(data[start:]))
			if err != nil || !c.kept && got.Kind != Empty {
				t.Errorf("got %+v, %v, want empty", got, err)
			}
			if data[start-1] != 9 {
				t.Error("the partition before it was touched")
			}
		})
	}
}

// A file system in a part of a disk leaves the rest of the disk alone.
func TestMakeIn(t *testing.T) {
	file, run, ctx := disk(t), &host{}, context.Background()
	const start, size = 100 << 20, 600 << 20
	around := map[int64][]byte{0: bytes.Repeat([]byte{7}, 4096), start - 4096: bytes.Repeat([]byte{8}, 4096), start + size: bytes.Repeat([]byte{9}, 4096)}
	for at, b := range around {
		poke(t, file, at, b)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "kept"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MakeIn(ctx, run, file, start, size, folder); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at, want := range around {
		got := make([]byte, len(want))
		if _, err := f.ReadAt(got, at); err != nil || !bytes.Equal(got, want) {
			t.Errorf("byte %d and those behind it were written over (%v)", at, err)
		}
	}
	if got, err := Look(io.NewSectionReader(f, start, size)); err != nil || got.Kind != Fresh || got.Bytes != size {
		t.Errorf("got %+v, %v, want a fresh one of %d bytes", got, err, size)
	}
	out, err := exec.Command("debugfs", "-R", "cat /kept", fmt.Sprintf("%s?offset=%d", file, start)).Output()
	if err != nil || string(out) != "text" {
		t.Errorf("what was in the folder: got %q, %v", out, err)
	}
	for tool, want := range map[string]string{layout.Mke2fs: "make the file system", layout.E2fsck: "check the file system"} {
		if err := MakeIn(ctx, &fake{codes: map[string]int{tool: 4}}, file, start, size, folder); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s fails: got %v", tool, err)
		}
	}
}
