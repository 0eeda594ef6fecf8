package kernel

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
)

// files is a small set in depmod's own form.
func files() fstest.MapFS {
	return fstest.MapFS{
		"modules.dep": {Data: []byte(`kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/fs/btrfs/btrfs.ko: kernel/lib/raid6/raid6-pq.ko
kernel/lib/raid6/raid6-pq.ko:
kernel/crypto/crc32c_generic.ko:
kernel/crypto/circle-a.ko:
kernel/crypto/circle-b.ko:
kernel/net/netfilter/nft_ct.ko.xz:
`)},
		"modules.alias": {Data: []byte(`# Aliases extracted from modules themselves.
alias virtio:d00000002v* virtio_blk
alias fs-btrfs btrfs
alias crypto-crc32c crc32c_generic
alias pci:v00008086d[0-9A-F]*sv*sd*bc02sc*i* virtio
alias acpi*:PNP0C0A:* virtio
alias nft-expr-2-ct nft_ct
alias ghost:* not_there
`)},
		"modules.softdep": {Data: []byte("# Soft\nsoftdep btrfs pre: crypto-crc32c absent post: virtio\nsoftdep circle_a pre: circle_b\nsoftdep circle_b pre: circle-a\nsoftdep nowhere pre: btrfs\n")},
		"modules.builtin": {Data: []byte("kernel/fs/ext4/ext4.ko\n")},
	}
}

func TestResolve(t *testing.T) {
	x, err := LoadIndex(files())
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, in string
		want     []string
	}{
		{"by name", "virtio_blk", []string{"virtio_blk"}},
		{"dashes for underscores", "virtio-blk", []string{"virtio_blk"}},
		{"file name with a dash", "raid6_pq", []string{"raid6_pq"}},
		{"device", "virtio:d00000002v00001AF4", []string{"virtio_blk"}},
		{"other device", "virtio:d00000001v00001AF4", nil},
		{"file system", "fs-btrfs", []string{"btrfs"}},
		{"set of characters", "pci:v00008086dABCDsvXsdXbc02sc00i00", []string{"virtio"}},
		{"wildcard in the bus", "acpi:PNP0C0A:", []string{"virtio"}},
		{"compressed file", "nft-expr-2-ct", []string{"nft_ct"}},
		{"alias of a module that is not there", "ghost:1", nil},
		{"built in", "ext4", nil},
		{"unknown", "xfs", nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := x.Resolve(c.in); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if !x.Has("ext4") || x.Has("xfs") {
		t.Error("Has: built-in ext4 is not known, or xfs is")
	}
	if got := x.modules["btrfs"].soft; !reflect.DeepEqual(got, []string{"crc32c_generic"}) {
		t.Errorf("soft dependencies of btrfs: got %q", got)
	}
	a, b := x.modules["circle_a"].soft, x.modules["circle_b"].soft
	if len(a)+len(b) != 1 {
		t.Errorf("circle of soft dependencies: got %q and %q, want one of them cut", a, b)
	}
}

func TestLoadIndexErrors(t *testing.T) {
	for name, change := range map[string][2]string{
		"dep without colon": {"modules.dep", "kernel/a.ko\n"},
		"dep that climbs":   {"modules.dep", "../a.ko:\n"},
		"short alias":       {"modules.alias", "alias x\n"},
		"bad softdep":       {"modules.softdep", "softdep\n"},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := files()
			fsys[change[0]] = &fstest.MapFile{Data: []byte("# comment\n" + change[1])}
			_, err := LoadIndex(fsys)
			if err == nil || !strings.Contains(err.Error(), change[0]) || !strings.Contains(err.Error(), "line 2") {
				t.Errorf("got %v, want an error that names %s and line 2", err, change[0])
			}
		})
	}
	fsys := files()
	delete(fsys, "modules.softdep")
	if _, err := LoadIndex(fsys); err != nil {
		t.Errorf("without modules.softdep: %v", err)
	}
	delete(fsys, "modules.dep")
	if _, err := LoadIndex(fsys); err == nil {
		t.Error("without modules.dep: got no error")
	}
}

func FuzzLoadIndex(f *testing.F) {
	m := files()
	f.Add(m["modules.dep"].Data, m["modules.alias"].Data, m["modules.softdep"].Data)
	f.Fuzz(func(t *testing.T, dep, alias, soft []byte) {
		x, err := LoadIndex(fstest.MapFS{"modules.dep": {Data: dep}, "modules.alias": {Data: alias}, "modules.softdep": {Data: soft}})
		if err == nil {
			x.Resolve("virtio:d00000002v00001AF4")
		}
	})
}

func TestMatch(t *testing.T) {
	cases := []struct {
		pattern, s string
		want       bool
	}{
		{"abc", "abc", true}, {"abc", "abcd", false}, {"*", "", true}, {"a*c", "abbc", true}, {"a*c", "abcb", false},
		{"a?c", "abc", true}, {"a?c", "ac", false}, {"[0-9]x", "5x", true}, {"[!0-9]x", "5x", false}, {"[]]", "]", true},
		{"*a*b", "xaxxb", true}, {"a[", "a[", true}, {`\*`, "*", true}, {`\*`, "a", false}, {"*:*:", "a:b:", true},
	}
	for _, c := range cases {
		if got := match(c.pattern, c.s); got != c.want {
			t.Errorf("match(%q, %q): got %v", c.pattern, c.s, got)
		}
	}
}

// A pattern of many stars must not take for ever.
func FuzzMatch(f *testing.F) {
	f.Add("*a*a*a*a*a*a*b", strings.Repeat("a", 200))
	f.Add("[", "[")
	f.Fuzz(func(t *testing.T, p, s string) {
		if match(p, s) && p == "" && s != "" {
			t.Errorf("empty pattern matches %q", s)
		}
	})
}

// recorder stands for the kernel.
type recorder struct {
	mu    sync.Mutex
	files []string
	fail  map[string]error
}

func (r *recorder) insert(file, params string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files = append(r.files, strings.TrimSpace(filepath.Base(file)+" "+params))
	return r.fail[filepath.Base(file)]
}

func newTestLoader(t *testing.T, r *recorder) *Loader {
	t.Helper()
	dir := t.TempDir()
	for name, f := range files() {
		if err := os.WriteFile(filepath.Join(dir, name), f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := NewLoader(LoaderConfig{Dir: dir, Sys: filepath.Join(dir, "sys"), Params: map[string]string{"virtio_blk": "queue_depth=4"},
		Logger: slog.New(slog.DiscardHandler), Insert: r.insert})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLoadOrder(t *testing.T) {
	r := &recorder{}
	l := newTestLoader(t, r)
	if err := l.Load("virtio_blk", "btrfs", "ext4", "circle_a", "circle_b"); err != nil {
		t.Fatal(err)
	}
	if err := l.Load("virtio-blk"); err != nil { // a second time is nothing
		t.Fatal(err)
	}
	at := func(name string) int { return slices.Index(r.files, name) }
	for _, pair := range [][2]string{
		{"virtio.ko", "virtio_ring.ko"}, {"virtio_ring.ko", "virtio_blk.ko queue_depth=4"},
		{"raid6-pq.ko", "btrfs.ko"}, {"crc32c_generic.ko", "btrfs.ko"},
	} {
		if at(pair[0]) < 0 || at(pair[1]) < at(pair[0]) {
			t.Errorf("%s does not come before %s in %q", pair[0], pair[1], r.files)
		}
	}
	if len(r.files) != 8 {
		t.Errorf("got %d modules, want each of 8 once: %q", len(r.files), r.files)
	}
}

// What the initramfs loaded is not read again, and neither is what it needs; a
// module that another loader is still busy with is left to the kernel.
func TestLoadLeavesWhatIsLive(t *testing.T) {
	r := &recorder{}
	l := newTestLoader(t, r)
	for name, state := range map[string]string{"virtio_ring": "live\n", "raid6_pq": "coming\n"} {
		dir := filepath.Join(l.cfg.Sys, "module", name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "initstate"), []byte(state), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Load("virtio_ring", "raid6_pq"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"raid6-pq.ko"}; !reflect.DeepEqual(r.files, want) {
		t.Errorf("got %q, want %q", r.files, want)
	}
}

func TestLoadErrors(t *testing.T) {
	r := &recorder{fail: map[string]error{"virtio.ko": syscall.ENOEXEC, "raid6-pq.ko": syscall.EEXIST}}
	l := newTestLoader(t, r)
	if err := l.Load("virtio_blk"); !errors.Is(err, syscall.ENOEXEC) || !strings.Contains(err.Error(), "virtio_blk") {
		t.Errorf("broken dependency: got %v", err)
	}
	if slices.Contains(r.files, "virtio_blk.ko queue_depth=4") {
		t.Error("virtio_blk was loaded without what it needs")
	}
	if err := l.Load("btrfs"); err != nil {
		t.Errorf("a dependency that is there already: got %v", err)
	}
	if err := l.Load("xfs"); err == nil || !strings.Contains(err.Error(), "xfs") {
		t.Errorf("unknown module: got %v", err)
	}
}

func TestColdplug(t *testing.T) {
	r := &recorder{}
	l := newTestLoader(t, r)
	for path, modalias := range map[string]string{
		"bus/virtio/devices/virtio0/modalias":   "virtio:d00000002v00001AF4\n",
		"bus/pci/devices/0000:00:01.0/modalias": "pci:nothing\n",
		"bus/acpi/devices/x/modalias":           "\n",
	} {
		file := filepath.Join(l.cfg.Sys, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(modalias), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Coldplug(); err != nil {
		t.Fatal(err)
	}
	want := []string{"virtio.ko", "virtio_ring.ko", "virtio_blk.ko queue_depth=4"}
	if !reflect.DeepEqual(r.files, want) {
		t.Errorf("got %q, want %q", r.files, want)
	}
}
