package repro

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// checkout makes a repository with one file that is committed, one that is
// not, and one that is ignored.
func checkout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"committed": "a", "sub/new": "b", "ignored": "c", ".gitignore": "/ignored\n/build/\n"} {
		write(t, filepath.Join(dir, name), text)
	}
	if err := os.Symlink("committed", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"init", "-q"}, {"add", "committed", ".gitignore"},
		{"-c", "user.name=x", "-c", "user.email=x@example.test", "commit", "-q", "-m", "x"},
	} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return dir
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run takes a shell script for the builder.
func run(t *testing.T, script string) (int, []Difference, error) {
	t.Helper()
	var out bytes.Buffer
	same, differences, err := Run(context.Background(), Config{
		Source: checkout(t), Work: filepath.Join(t.TempDir(), "work"), Commands: [][]string{{"sh", "-ec", script}},
		Result: "build/out", Ignore: []string{"memo"}, Output: &out,
	})
	if err != nil && strings.Contains(err.Error(), "user namespaces") {
		t.Skip("SKIPPED: no user namespaces here: " + err.Error())
	}
	if err != nil {
		t.Logf("output:\n%s", &out)
	}
	return same, differences, err
}

func TestSame(t *testing.T) {
	same, differences, err := run(t, `mkdir -p build/out/sub; cat committed sub/new link > build/out/sub/a; git log -1 --format=%H > build/out/b; pwd > build/out/memo; test ! -e ignored`)
	if err != nil || same != 2 || len(differences) != 0 {
		t.Errorf("got %d the same, %v, %v", same, differences, err)
	}
}

// Each circumstance is another, or the comparison would compare nothing.
func TestCircumstancesDiffer(t *testing.T) {
	_, differences, err := run(t, `mkdir -p build/out; cd build/out
		pwd > path; id -u > user; nproc > processors; umask > umask; echo "$TZ" > zone; echo "$HOME" > home; echo "$LC_ALL" > language
		stat -c %Y ../../committed > age; stat -c %u . > owner`)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"age", "home", "language", "owner", "path", "processors", "umask", "user", "zone"}
	if out, err := exec.Command("nproc").Output(); err == nil && strings.TrimSpace(string(out)) == "1" {
		want = slices.DeleteFunc(want, func(s string) bool { return s == "processors" })
	}
	var got []string
	for _, d := range differences {
		got = append(got, d.File)
	}
	if !slices.Equal(got, want) {
		t.Errorf("different are %v, want %v", got, want)
	}
}

func TestBuildFails(t *testing.T) {
	if _, _, err := run(t, "exit 3"); err == nil || !strings.Contains(err.Error(), "build 1: exit status 3") {
		t.Errorf("got %v", err)
	}
}

func TestCompare(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	long := strings.Repeat("x", 3<<20)
	for name, both := range map[string][2]string{
		"same": {long, long}, "empty": {"", ""}, "late": {long + "a" + long, long + "b" + long}, "first": {"a", "b"},
		"longer": {long, long + "y"}, "ignored": {"a", "b"},
	} {
		write(t, filepath.Join(a, name), both[0])
		write(t, filepath.Join(b, name), both[1])
	}
	write(t, filepath.Join(a, "sub/one"), "")
	write(t, filepath.Join(b, "sub/two"), "")
	same, differences, err := Compare(a, b, []string{"ignored"})
	if err != nil || same != 2 {
		t.Errorf("got %d the same, %v", same, err)
	}
	var got []string
	for _, d := range differences {
		got = append(got, d.String())
	}
	want := []string{
		"first: differs from byte 0 on", "late: differs from byte 3145728 on", "longer: differs from byte 3145728 on",
		filepath.Join("sub", "one") + ": only the first build made it", filepath.Join("sub", "two") + ": only the second build made it",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, _, err := Compare(a, filepath.Join(b, "none"), nil); err == nil {
		t.Error("a folder that is not there: got no error")
	}
}
