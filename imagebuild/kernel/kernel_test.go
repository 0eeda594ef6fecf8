package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"keelson/imagebuild/tree"

	"github.com/ulikunitz/xz"
)

// object makes a relocatable ELF file with nothing but a .modinfo section.
func object(fields ...string) []byte {
	info := []byte(strings.Join(fields, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[16:], 1)  // ET_REL
	le.PutUint16(b[18:], 62) // EM_X86_64
	le.PutUint32(b[20:], 1)
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[58:], 64) // section header size
	le.PutUint16(b[60:], 3)
	le.PutUint16(b[62:], 2)
	infoAt := len(b)
	b = append(b, info...)
	namesAt := len(b)
	b = append(b, names...)
	le.PutUint64(b[40:], uint64(len(b)))
	section := func(name, kind uint32, at, size int) {
		var h [64]byte
		le.PutUint32(h[0:], name)
		le.PutUint32(h[4:], kind)
		le.PutUint64(h[24:], uint64(at))
		le.PutUint64(h[32:], uint64(size))
		b = append(b, h[:]...)
	}
	section(0, 0, 0, 0)
	section(1, 1, infoAt, len(info))
	section(10, 3, namesAt, len(names))
	return b
}

// sample is a kernel package: top needs mid and low, mid needs low.
func sample(t *testing.T) *Kernel {
	t.Helper()
	dir := t.TempDir()
	base := filepath.Join(dir, "lib/modules/6.12.1-test")
	files := map[string][]byte{
		filepath.Join(dir, "boot/vmlinuz-6.12.1-test"): []byte("kernel"),
		filepath.Join(base, "modules.order"):           []byte("kernel/d/top.ko\nkernel/d/mid-dle.ko\nkernel/low.ko\nkernel/wish.ko\nkernel/lonely.ko\n"),
		filepath.Join(base, "kernel/d/top.ko"):         object("license=GPL", "depends=low,mid_dle,crc16", "alias=pci:v1d*", "alias=top-alias", "softdep=pre: wish nowhere post: lonely"),
		filepath.Join(base, "kernel/d/mid-dle.ko.xz"):  pack(t, object("depends=low", "alias=virtio:d2")),
		filepath.Join(base, "kernel/low.ko"):           object("depends="),
		filepath.Join(base, "kernel/wish.ko"):          object("depends="),
		filepath.Join(base, "kernel/lonely.ko"):        object("depends="),
		filepath.Join(base, "kernel/orphan.ko"):        object("depends=absent"),
	}
	files[filepath.Join(base, "modules.builtin")] = []byte("kernel/fs/ext4/ext4.ko\nkernel/lib/crc16.ko\n")
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	k, err := Open(dir, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func pack(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := xz.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestClosure(t *testing.T) {
	k := sample(t)
	if k.Release != "6.12.1-test" {
		t.Errorf("Release: got %s", k.Release)
	}
	for _, c := range []struct {
		name  string
		names []string
		want  string
	}{
		{"dependencies and wishes", []string{"top"}, "lonely low mid_dle top wish"},
		{"built in", []string{"ext4"}, ""},
		{"one", []string{"low", "low"}, "low"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := k.Closure(c.names)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(s.Names(), " "); got != c.want {
				t.Errorf("Closure(%v): got %q, want %q", c.names, got, c.want)
			}
		})
	}
	for _, c := range []struct {
		name, module, want string
	}{
		{"unknown", "nonsense", "no module nonsense"},
		{"broken package", "orphan", "orphan needs absent"},
	} {
		if _, err := k.Closure([]string{c.module}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func TestIndexFiles(t *testing.T) {
	s, err := sample(t).Closure([]string{"top"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, got, want string }{
		{"modules.dep", string(s.RenderDep()), "kernel/d/top.ko: kernel/d/mid-dle.ko kernel/low.ko\nkernel/d/mid-dle.ko: kernel/low.ko\nkernel/low.ko:\nkernel/wish.ko:\nkernel/lonely.ko:\n"},
		{"modules.alias", string(s.RenderAlias()), "# Aliases extracted from modules themselves.\nalias pci:v1d* top\nalias top-alias top\nalias virtio:d2 mid_dle\n"},
		{"modules.softdep", string(s.RenderSoftdep()), "# Soft dependencies extracted from modules themselves.\nsoftdep top pre: wish nowhere post: lonely\n"},
	} {
		if c.got != c.want {
			t.Errorf("%s:\ngot\n%s\nwant\n%s", c.name, c.got, c.want)
		}
	}
	var tr tree.Tree
	if err := s.Put(&tr, "/lib/modules"); err != nil {
		t.Fatal(err)
	}
	e, ok := tr.Get("/lib/modules/6.12.1-test/kernel/d/mid-dle.ko")
	if want := int64(len(object("depends=low", "alias=virtio:d2"))); !ok || e.Size != want {
		t.Errorf("unpacked module: got %v, %d bytes, want %d", ok, e.Size, want)
	}
}

// A packed set has the package's own bytes, but for what another set has plain.
func TestPack(t *testing.T) {
	k := sample(t)
	for _, c := range []struct {
		name, plain, want string
	}{
		{"all", "", "kernel/d/mid-dle.ko.xz"},
		{"but what every machine loads", "mid_dle", "kernel/d/mid-dle.ko"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := k.Closure([]string{"top"})
			if err != nil {
				t.Fatal(err)
			}
			plain := &Set{}
			if c.plain != "" {
				if plain, err = k.Closure([]string{c.plain}); err != nil {
					t.Fatal(err)
				}
			}
			s.Pack(plain)
			var tr tree.Tree
			if err := s.Put(&tr, "/lib/modules"); err != nil {
				t.Fatal(err)
			}
			e, ok := tr.Get("/lib/modules/6.12.1-test/" + c.want)
			if want := int64(len(pack(t, object("depends=low", "alias=virtio:d2")))); !ok || (e.Size == want) != strings.HasSuffix(c.want, ".xz") {
				t.Errorf("%s: got %v, %d bytes; packed it has %d", c.want, ok, e.Size, want)
			}
			if got := string(s.RenderDep()); !strings.Contains(got, "kernel/d/top.ko: "+c.want+" kernel/low.ko\n"+c.want+": kernel/low.ko\n") {
				t.Errorf("modules.dep: got\n%s", got)
			}
		})
	}
}

// TestDepmod compares modules.dep and modules.alias with what kmod's own tool
// makes of the same modules.
func TestDepmod(t *testing.T) {
	depmod, err := exec.LookPath("depmod")
	if err != nil {
		if depmod, err = exec.LookPath("/sbin/depmod"); err != nil {
			t.Skip("kmod is not installed")
		}
	}
	for _, packed := range []bool{false, true} {
		t.Run(fmt.Sprintf("packed %t", packed), func(t *testing.T) { againstDepmod(t, depmod, packed) })
	}
}

func againstDepmod(t *testing.T, depmod string, packed bool) {
	s, err := sample(t).Closure([]string{"top"})
	if err != nil {
		t.Fatal(err)
	}
	if packed {
		s.Pack(&Set{})
	}
	dir := t.TempDir()
	base := filepath.Join(dir, "lib/modules/6.12.1-test")
	for _, name := range s.Names() {
		b, err := os.ReadFile(s.modules[name].File)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(base, s.modules[name].Path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(base, "modules.order"), s.order, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, "modules.builtin"), s.builtin, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(depmod, "-b", dir, "6.12.1-test").CombinedOutput(); err != nil {
		t.Fatalf("depmod: %v: %s", err, out)
	}
	for name, ours := range map[string][]byte{"modules.alias": s.RenderAlias(), "modules.softdep": s.RenderSoftdep()} {
		theirs, err := os.ReadFile(filepath.Join(base, name))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := sorted(ours), sorted(theirs); !slices.Equal(got, want) {
			t.Errorf("%s: got\n%s\ndepmod has\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// sorted lists the lines but for comments.
func sorted(b []byte) []string {
	var out []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	sort.Strings(out)
	return out
}

func TestLoadList(t *testing.T) {
	got, err := LoadList("f", []byte("# c\na-b\n ; x\nc # why\n"))
	if err != nil || strings.Join(got, " ") != "a_b c" {
		t.Errorf("LoadList: got %v, %v", got, err)
	}
	for _, bad := range []string{"a\nb c\n", "a\nkernel/x\n", "a\nx.ko\n"} {
		if _, err := LoadList("f", []byte(bad)); err == nil || !strings.HasPrefix(err.Error(), "f:2: ") {
			t.Errorf("LoadList(%q): got %v, want an error at f:2", bad, err)
		}
	}
}

func TestCommittedLists(t *testing.T) {
	files, err := filepath.Glob("../../configs/modules/*.list")
	if err != nil || len(files) < 2 {
		t.Fatalf("module lists: got %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names, err := LoadList(file, text)
		if err != nil {
			t.Fatal(err)
		}
		sort.Strings(names)
		if len(slices.Compact(slices.Clone(names))) != len(names) {
			t.Errorf("%s: a module is there twice", file)
		}
	}
}

func TestFirmware(t *testing.T) {
	a, err := parseModinfo([]byte("firmware=b/two.fw\x00firmware=one-*.fw\x00"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := parseModinfo([]byte("firmware=b/two.fw\x00"))
	if err != nil {
		t.Fatal(err)
	}
	s := Set{modules: map[string]Module{"a": a, "b": b}}
	if got, want := s.Firmware(), []string{"b/two.fw", "one-*.fw"}; !slices.Equal(got, want) {
		t.Errorf("Firmware: got %q, want %q", got, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	if _, err := Open(t.TempDir(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "found 0") {
		t.Errorf("Open of an empty folder: got %v", err)
	}
}

func FuzzParseModinfo(f *testing.F) {
	f.Add([]byte("license=GPL\x00depends=a,b\x00alias=pci:*\x00softdep=pre: a post: b\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseModinfo(data)
		if err != nil {
			return
		}
		m.Name, m.Path = "m", "kernel/m.ko"
		s := Set{modules: map[string]Module{"m": m}}
		for line := range strings.Lines(string(s.RenderAlias())) {
			if !strings.HasPrefix(line, "#") && len(strings.Fields(line)) > 3 {
				t.Errorf("alias of %q makes the line %q", data, line)
			}
		}
	})
}
