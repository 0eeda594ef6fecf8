package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keelson/imagebuild/tree"
)

func write(t *testing.T, dir, name, text string, perm fs.FileMode) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, perm); err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, tr *tree.Tree) string {
	t.Helper()
	entries, err := tr.Entries()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		line := e.Mode.String() + " " + e.Path
		if e.Target != "" {
			line += " -> " + e.Target
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func TestSkeletonAndOverlay(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "etc/conf", "x", 0o600)
	write(t, dir, "bin/run", "x", 0o700)
	write(t, dir, "empty/.gitkeep", "", 0o644)
	if err := os.Symlink("conf", filepath.Join(dir, "etc/link")); err != nil {
		t.Fatal(err)
	}
	var tr tree.Tree
	if err := Skeleton(&tr, []string{"/proc"}); err != nil {
		t.Fatal(err)
	}
	if err := Overlay(&tr, dir, "/usr"); err != nil {
		t.Fatal(err)
	}
	want := `drwxr-xr-x /
Lrwxrwxrwx /bin -> usr/bin
Lrwxrwxrwx /lib -> usr/lib
Lrwxrwxrwx /lib64 -> usr/lib64
drwxr-xr-x /proc
Lrwxrwxrwx /sbin -> usr/sbin
drwxr-xr-x /usr
drwxr-xr-x /usr/bin
-rwxr-xr-x /usr/bin/run
drwxr-xr-x /usr/empty
drwxr-xr-x /usr/etc
-rw-r--r-- /usr/etc/conf
Lrwxrwxrwx /usr/etc/link -> conf
drwxr-xr-x /usr/lib
drwxr-xr-x /usr/lib64
drwxr-xr-x /usr/sbin`
	if got := list(t, &tr); got != want {
		t.Errorf("tree:\n%s\nwant:\n%s", got, want)
	}
}

func TestCopyKeeps(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a/x", "b/x", "c"} {
		write(t, dir, name, "x", 0o644)
	}
	var tr tree.Tree
	if err := Copy(&tr, dir, "/z", func(rel string) bool { return rel != "b" }); err != nil {
		t.Fatal(err)
	}
	if got := list(t, &tr); strings.Contains(got, "/z/b") || !strings.Contains(got, "/z/a/x") || !strings.Contains(got, "/z/c") {
		t.Errorf("tree:\n%s", got)
	}
	if err := Overlay(&tr, filepath.Join(dir, "absent"), "/"); err == nil {
		t.Error("Overlay of a folder that is absent: got no error")
	}
}

func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "mozilla/b.crt", "B\n\n", 0o644)
	write(t, dir, "mozilla/a.crt", "A", 0o644)
	write(t, dir, "mozilla/readme", "no", 0o644)
	got, err := Certificates(dir)
	if err != nil || string(got) != "A\nB\n" {
		t.Errorf("Certificates: got %q, %v", got, err)
	}
	if _, err := Certificates(t.TempDir()); err == nil {
		t.Error("Certificates of an empty folder: got no error")
	}
}

func TestShare(t *testing.T) {
	var tr tree.Tree
	for p, text := range map[string]string{
		"/layers/n/usr/lib/same": "1", "/usr/lib/same": "1", "/layers/n/usr/lib/other": "1", "/usr/lib/other": "2", "/layers/n/usr/lib/only": "1",
	} {
		if err := tr.Bytes(p, 0o644, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := Share(&tr, "/layers/n"); err != nil {
		t.Fatal(err)
	}
	if e, _ := tr.Get("/usr/lib/same"); e.Target != "/layers/n/usr/lib/same" {
		t.Errorf("same content: got %v %q, want a link into the layer", e.Mode, e.Target)
	}
	if e, _ := tr.Get("/usr/lib/other"); !e.Mode.IsRegular() {
		t.Errorf("other content: got %v, want it left alone", e.Mode)
	}
}

// dynamic compiles a program for x86_64, on whatever machine, that needs a library of our own and glibc.
func dynamic(t *testing.T) (dir string) {
	t.Helper()
	const compiler = "x86_64-linux-gnu-gcc" // the name of Debian's gcc on x86_64 too
	if _, err := exec.LookPath(compiler); err != nil {
		t.Skip("SKIPPED: " + compiler + " is absent (make check installs it)")
	}
	src := t.TempDir()
	dir = t.TempDir()
	write(t, src, "lib.c", "int seven(void) { return 7; }\n", 0o644)
	write(t, src, "main.c", "int seven(void); int main(void) { return seven() - 7; }\n", 0o644)
	libs := filepath.Join(dir, "usr/lib/x86_64-linux-gnu")
	for _, d := range []string{libs, filepath.Join(dir, "usr/sbin")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	gcc := func(args ...string) {
		cmd := exec.Command(compiler, args...)
		cmd.Dir = src
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v: %s", err, out)
		}
	}
	gcc("-shared", "-fPIC", "-Wl,-soname,libseven.so.1", "-o", libs+"/libseven.so.1.0", "lib.c")
	if err := os.Symlink("libseven.so.1.0", libs+"/libseven.so.1"); err != nil {
		t.Fatal(err)
	}
	gcc("-o", dir+"/usr/sbin/prog", "main.c", libs+"/libseven.so.1")
	// glibc as Debian's package lays it out, before the merge of /usr.
	for _, name := range []string{"libc.so.6", "ld-linux-x86-64.so.2"} {
		b, err := os.ReadFile("/lib/x86_64-linux-gnu/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			b, err = os.ReadFile("/usr/x86_64-linux-gnu/lib/" + name) // of a cross compiler
		}
		if err != nil {
			t.Skipf("SKIPPED: glibc is not where Debian has it: %v", err)
		}
		write(t, dir, "lib/x86_64-linux-gnu/"+name, string(b), 0o755)
	}
	if err := os.MkdirAll(dir+"/lib64", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", dir+"/lib64/ld-linux-x86-64.so.2"); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPrograms(t *testing.T) {
	dir := dynamic(t)
	var tr tree.Tree
	if err := Programs(&tr, "/l", "amd64", []string{dir}, []string{"/usr/sbin/prog"}); err != nil {
		t.Fatal(err)
	}
	got := list(t, &tr)
	for _, want := range []string{
		"-rwxr-xr-x /l/usr/sbin/prog",
		"Lrwxrwxrwx /l/usr/lib/x86_64-linux-gnu/libseven.so.1 -> libseven.so.1.0",
		"-rw-r--r-- /l/usr/lib/x86_64-linux-gnu/libseven.so.1.0",
		"/l/usr/lib/x86_64-linux-gnu/libc.so.6",
		"Lrwxrwxrwx /l/usr/lib64/ld-linux-x86-64.so.2 -> /lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
		"Lrwxrwxrwx /l/lib64 -> usr/lib64",
		"Lrwxrwxrwx /l/lib -> usr/lib",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("closure lacks %s:\n%s", want, got)
		}
	}
	if wrong, err := Lint(&tr, Rules{Arch: "amd64", Layers: ""}); err != nil || len(wrong) == 0 {
		t.Errorf("Lint with / for root: got %v, %v, want the loader missed", wrong, err)
	}
	var layered tree.Tree
	if err := Programs(&layered, "/layers/l", "amd64", []string{dir}, []string{"/usr/sbin/prog"}); err != nil {
		t.Fatal(err)
	}
	if wrong, err := Lint(&layered, Rules{Arch: "amd64", Layers: "/layers"}); err != nil || len(wrong) != 0 {
		t.Errorf("Lint of the layer: got %v, %v, want nothing wrong", wrong, err)
	}
	if err := os.Remove(filepath.Join(dir, "usr/lib/x86_64-linux-gnu/libseven.so.1")); err != nil {
		t.Fatal(err)
	}
	if err := Programs(&tree.Tree{}, "/", "amd64", []string{dir}, []string{"/usr/sbin/prog"}); err == nil || !strings.Contains(err.Error(), "libseven.so.1") {
		t.Errorf("Programs without a library: got %v, want it named", err)
	}
	if err := Programs(&tree.Tree{}, "/", "amd64", []string{dir}, []string{"/usr/sbin/absent"}); err == nil {
		t.Error("Programs of what is absent: got no error")
	}
}
