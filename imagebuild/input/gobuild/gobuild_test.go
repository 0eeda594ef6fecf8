package gobuild

import (
	"bytes"
	"context"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestProgramNames(t *testing.T) {
	for _, c := range []struct{ pkg, want string }{
		{"./init", "init"},
		{"go.test/x/etcdutl/v3", "etcdutl"},
		{"go.test/x/vault", "vault"},
		{"go.test/x/v", "v"},
	} {
		if got := (Program{Package: c.pkg}).name(); got != c.want {
			t.Errorf("name of %s: got %s, want %s", c.pkg, got, c.want)
		}
	}
	seen := map[string]bool{}
	for _, p := range Programs() {
		if seen[p.name()] {
			t.Errorf("two programs are called %s", p.name())
		}
		seen[p.name()] = true
	}
}

func TestModules(t *testing.T) {
	got := Modules([]byte("module m\n\ngo 1.26.7\n\nrequire example.test/one v1.2.3\n\nrequire (\n\texample.test/two v0.0.1 // indirect\n)\n\ntool (\n\texample.test/tool\n)\n\nreplace example.test/a => example.test/a v9.9.9\n"))
	if len(got) != 2 || got["example.test/one"] != "v1.2.3" || got["example.test/two"] != "v0.0.1" {
		t.Errorf("Modules: got %v, want the two that are required", got)
	}
}

func TestStamps(t *testing.T) {
	stamps, err := Stamps(map[string]string{"k8s.io/kubernetes": "v1.37.2", "github.com/containerd/containerd/v2": "v2.4.2"}, "abc", time.Unix(86400, 0))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range stamps {
		got[s.Variable] = s.Value
	}
	for variable, want := range map[string]string{
		"k8s.io/component-base/version.gitVersion":            "v1.37.2+keelson1",
		"k8s.io/client-go/pkg/version.gitMinor":               "37",
		"k8s.io/component-base/version.buildDate":             "1970-01-02T00:00:00Z",
		"github.com/containerd/containerd/v2/version.Version": "v2.4.2",
		"go.etcd.io/etcd/api/v3/version.GitSHA":               "abc",
	} {
		if got[variable] != want {
			t.Errorf("%s: got %q, want %q", variable, got[variable], want)
		}
	}
	if _, err := Stamps(nil, "abc", time.Unix(0, 0)); err == nil {
		t.Error("Stamps without Kubernetes in go.mod: got no error")
	}
}

// TestVariablesExist checks each stamp against the sources: the linker
// ignores a -X whose variable is not there.
func TestVariablesExist(t *testing.T) {
	stamps, err := Stamps(map[string]string{"k8s.io/kubernetes": "v1.37.2"}, "abc", time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stamps {
		dot := strings.LastIndexByte(s.Variable, '.')
		pkg, name := s.Variable[:dot], s.Variable[dot+1:]
		out, err := exec.Command("go", "list", "-f", "{{.Dir}}", pkg).Output()
		if err != nil {
			t.Errorf("package of stamp %s: %v", s.Variable, err)
			continue
		}
		files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "var "))
				found = found || len(fields) > 1 && strings.TrimSuffix(fields[0], ",") == name && fields[1] != ":="
			}
		}
		if !found {
			t.Errorf("stamp %s: there is no such variable", s.Variable)
		}
	}
}

// module writes a module with one program whose version can be stamped.
func module(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":        "module m\n\ngo 1.26\n",
		"prog/main.go":  "package main\n\nvar version = \"unset\"\n\nfunc main() { println(version) }\n",
		"other/main.go": "package main\n\nfunc main() {}\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBuild(t *testing.T) {
	var sums []string
	for range 2 {
		dir := module(t) // another path each time: it must not be in the binary
		out := filepath.Join(t.TempDir(), "bin")
		got, err := Build(context.Background(), Config{Root: dir, Out: out, Arch: runtime.GOARCH, Stamps: []Stamp{{"main.version", "v7"}}},
			[]Program{{Package: "./prog"}, {Package: "./other"}})
		if err != nil {
			t.Fatal(err)
		}
		if names := strings.Join(Names(got), " "); names != "other prog" {
			t.Errorf("Build: got %s", names)
		}
		said, err := exec.Command(got["prog"]).CombinedOutput()
		if err != nil || strings.TrimSpace(string(said)) != "v7" {
			t.Errorf("prog says %q, %v, want its stamp", said, err)
		}
		b, err := os.ReadFile(got["prog"])
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), dir) {
			t.Error("the binary names the folder it was built in")
		}
		sums = append(sums, string(b))
	}
	if sums[0] != sums[1] {
		t.Error("two builds of the same sources differ")
	}
}

// A program in C and Go, for this architecture and for another with its
// compiler, and a library of the sysroot's, from two folders: the bytes are the
// same.
func TestBuildWithLibrary(t *testing.T) {
	triplets := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
	for arch, triplet := range triplets {
		t.Run(arch, func(t *testing.T) { buildWithLibrary(t, arch, triplet, arch != runtime.GOARCH) })
	}
}

func buildWithLibrary(t *testing.T, arch, triplet string, foreign bool) {
	prefix := ""
	if foreign {
		prefix = triplet + "-"
	}
	for _, tool := range []string{prefix + "gcc", prefix + "ar", prefix + "objcopy", "pkg-config"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: %s is absent (make check ARCH=%s installs it)", tool, arch)
		}
	}
	var made []string
	for range 2 {
		sysroot, dir := t.TempDir(), module(t)
		lib := filepath.Join(sysroot, "usr/lib", triplet)
		ownLibrary(t, sysroot, triplet, prefix)
		for name, text := range map[string]string{
			filepath.Join(sysroot, "usr/include/seven.h"): "int seven(void);\n",
			filepath.Join(sysroot, "seven.c"):             "int seven(void) { return 7; }\n",
			filepath.Join(lib, "pkgconfig/seven.pc"): "prefix=/usr\nName: seven\nDescription: x\nVersion: 1\nCflags: -I${prefix}/include\nLibs: -L${prefix}/lib/" +
				triplet + " -lseven\n",
			filepath.Join(dir, "prog/main.go"): "package main\n\n// #cgo pkg-config: seven\n// #include <seven.h>\n// #include <sysexits.h>\n// #if EX_OK != 7\n// #error the header of the machine\n// #endif\nimport \"C\"\n\nfunc main() { println(C.seven()) }\n",
		} {
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for _, args := range [][]string{
			{prefix + "gcc", "-c", "-o", filepath.Join(sysroot, "seven.o"), filepath.Join(sysroot, "seven.c")},
			{prefix + "ar", "rc", filepath.Join(lib, "libseven.a"), filepath.Join(sysroot, "seven.o")},
		} {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v: %s", args, err, out)
			}
		}
		got, err := Build(context.Background(), Config{Root: dir, Out: filepath.Join(t.TempDir(), "bin"), Arch: arch, Triplet: triplet, Sysroot: sysroot, Foreign: foreign},
			[]Program{{Package: "./prog", CGO: true}})
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(got["prog"])
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]elf.Machine{"arm64": elf.EM_AARCH64, "amd64": elf.EM_X86_64}[arch]; f.Machine != want || f.Section(".interp") != nil {
			t.Errorf("program: for %v, interpreter %v, want a static one for %v", f.Machine, f.Section(".interp"), want)
		}
		if f.Section(".sysroot") == nil {
			t.Error("the program is linked with the C library of the machine, not with the sysroot's")
		}
		if c := f.Section(".comment"); c != nil {
			if text, err := c.Data(); err != nil || bytes.Count(text, []byte{0}) > 1 {
				t.Errorf("what compiled it: %q, %v, want the C library's alone", text, err)
			}
		}
		if bytes.Contains(b, []byte(sysroot)) {
			t.Error("the program names the sysroot's folder")
		}
		made = append(made, string(b))
	}
	if made[0] != made[1] {
		t.Error("the sysroot's folder changes the program")
	}
}

// ownLibrary puts the machine's C library for a triplet into a sysroot, with
// marks: a start file with a section of its own, and a header that says
// something else.
func ownLibrary(t *testing.T, sysroot, triplet, prefix string) {
	t.Helper()
	lib := filepath.Join(sysroot, "usr/lib", triplet)
	from := map[string]string{lib: "/usr/lib/" + triplet, filepath.Join(sysroot, "usr/include"): "/usr/include"}
	if prefix != "" {
		from = map[string]string{lib: "/usr/" + triplet + "/lib", filepath.Join(sysroot, "usr/include"): "/usr/" + triplet + "/include"}
	}
	for to, dir := range from {
		if err := os.MkdirAll(to, 0o755); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) == 0 {
			t.Skipf("SKIPPED: no C library in %s (make check installs it)", dir)
		}
		for _, e := range entries {
			switch e.Name() {
			case "crt1.o", "sysexits.h", "pkgconfig":
				continue
			}
			if err := os.Symlink(filepath.Join(dir, e.Name()), filepath.Join(to, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, text := range map[string]string{filepath.Join(sysroot, "usr/include/sysexits.h"): "#define EX_OK 7\n", filepath.Join(sysroot, "mark"): "mark"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"--add-section", ".sysroot=" + filepath.Join(sysroot, "mark"), from[lib] + "/crt1.o", lib + "/crt1.o"}
	if out, err := exec.Command(prefix+"objcopy", args...).CombinedOutput(); err != nil {
		t.Fatalf("objcopy: %v: %s", err, out)
	}
}

// What gcc brings of the C library is the sysroot's too, if it is there.
func TestSysrootFlags(t *testing.T) {
	root := t.TempDir()
	flags, err := sysrootFlags(root, "vax-linux-gnu")
	if err != nil || strings.Contains(strings.Join(flags, " "), "/gcc/") {
		t.Errorf("without gcc's libraries: got %v, %v", flags, err)
	}
	for i, version := range []string{"12", "13"} {
		if err := os.MkdirAll(filepath.Join(root, "usr/lib/gcc/vax-linux-gnu", version), 0o755); err != nil {
			t.Fatal(err)
		}
		flags, err := sysrootFlags(root, "vax-linux-gnu")
		if i == 0 && (err != nil || !strings.Contains(strings.Join(flags, " "), " -B"+root+"/usr/lib/gcc/vax-linux-gnu/12 ")) {
			t.Errorf("with gcc's libraries: got %v, %v", flags, err)
		}
		if i == 1 && err == nil {
			t.Errorf("of two compilers: got %v, want an error", flags)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	dir := module(t)
	if err := os.WriteFile(filepath.Join(dir, "prog/main.go"), []byte("package main\n\nfunc main() { nonsense() }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	config := Config{Root: dir, Out: filepath.Join(t.TempDir(), "bin"), Arch: "amd64"}
	if _, err := Build(context.Background(), config, []Program{{Package: "./prog"}}); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("Build: got %v, want the compiler's words", err)
	}
	if _, err := Build(context.Background(), config, []Program{{Package: "./prog"}, {Package: "./x/prog"}}); err == nil || !strings.Contains(err.Error(), "same name") {
		t.Errorf("Build of two programs of one name: got %v", err)
	}
}
