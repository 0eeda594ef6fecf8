package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeProc makes a folder like /proc out of pid: stat, cmdline.
func fakeProc(t *testing.T, all map[int][2]string) string {
	t.Helper()
	root := t.TempDir()
	for pid, files := range all {
		dir := filepath.Join(root, fmt.Sprint(pid))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for i, name := range []string{"stat", "cmdline"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(files[i]), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(root, "meminfo"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestNamed(t *testing.T) {
	root := fakeProc(t, map[int][2]string{
		1:  {"1 (init) S 0 1", "/usr/sbin/init\x00"},
		2:  {"2 (kthreadd) S 0 0", ""},
		10: {"10 (bundle) S 1 1", "/usr/bin/containerd\x00--config\x00x"},
		11: {"11 (containerd-shim) S 1 1", "/usr/bin/containerd-shim-runc-v2\x00"},
		12: {"12 (etcd) Z 11 1", ""},
		13: {"13 (a) b) S 11 1", "etcd\x00"},
	})
	for name, want := range map[string]string{"containerd": "[10]", "etcd": "[13]", "kubelet": "[]", "init": "[1]"} {
		got, err := named(root, name)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("named(%s): got %v, %v, want %s", name, got, err, want)
		}
	}
	gone, err := dead(root)
	if err != nil || len(gone) != 1 || gone[12].comm != "etcd" || gone[12].parent != 11 {
		t.Errorf("dead: got %v, %v, want etcd of 11", gone, err)
	}
}

func TestParseStatRefuses(t *testing.T) {
	for _, in := range []string{"", "1 init S 0", "1 (init", "x (init) S 0", "1 (init) S", "1 (init) Sleeping 0", "1 (init) S x"} {
		if p, err := parseStat([]byte(in)); err == nil {
			t.Errorf("parseStat(%q): got %+v, want an error", in, p)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("13 (a) b) S 11 1"))
	f.Fuzz(func(t *testing.T, stat []byte) {
		p, err := parseStat(stat)
		if err == nil && p.state == 0 {
			t.Errorf("%q: got no state and no error", stat)
		}
	})
}

func TestField(t *testing.T) {
	text := "MemTotal:        4021240 kB\nMemFree:           1 kB\n"
	if got, err := field(text, "MemTotal"); err != nil || got != 4021240 {
		t.Errorf("field: got %d, %v, want 4021240", got, err)
	}
	if _, err := field(text, "MemAvailable"); err == nil {
		t.Error("a line that is not there: got no error")
	}
}

// The whole program, built as it goes into the image.
func TestProgram(t *testing.T) {
	program := filepath.Join(t.TempDir(), "workload")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "pod-1") }))
	defer srv.Close()
	file := filepath.Join(t.TempDir(), "file")
	for _, c := range []struct {
		name, want string
		args       []string
		fails      bool
	}{
		{"write", "", []string{"write", file, "text\n"}, false},
		{"cat", "text\n", []string{"cat", file}, false},
		{"remove", "", []string{"remove", file}, false},
		{"remove again", "no such file", []string{"remove", file}, true},
		{"echo", "a b\n", []string{"echo", "a", "b"}, false},
		{"get", "pod-1\n", []string{"get", srv.URL}, false},
		{"deny", "denied\n", []string{"deny", "http://127.0.0.1:1"}, false},
		{"lookup", "127.0.0.1", []string{"lookup", "localhost"}, false},
		{"zombies", " zombies\n", []string{"zombies"}, false},
		{"memory", "PID1VmRSS ", []string{"memory"}, false},
		{"pids", "\n", []string{"pids", "no-such-program"}, false},
		{"kill nobody", "no such process", []string{"kill", "no-such-program"}, true},
		{"no verb", "serve ADDRESS", []string{}, true},
		{"too few arguments", "get URL", []string{"get"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := exec.Command(program, c.args...).CombinedOutput()
			if (err != nil) != c.fails || !strings.Contains(string(out), c.want) {
				t.Errorf("got %q, %v, want %q", out, err, c.want)
			}
		})
	}
}

func TestKillWaitsForASuccessor(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("SKIPPED: no sleep program to be killed")
	}
	victim := filepath.Join(t.TempDir(), "keelson-victim")
	if err := os.Symlink(sleep, victim); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	first := exec.CommandContext(ctx, victim, "600")
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	second := exec.CommandContext(ctx, victim, "600")
	go func() {
		first.Wait()
		if err := second.Start(); err == nil {
			second.Wait()
		}
	}()
	if err := killed(ctx, "keelson-victim", 0); err != nil {
		t.Error(err)
	}
}

func TestPersistEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	calls := 0
	err := persist(ctx, func(context.Context) error {
		calls++
		cancel()
		return fmt.Errorf("not yet")
	})
	if err != context.Canceled || calls != 1 {
		t.Errorf("got %v after %d tries, want %v after one", err, calls, context.Canceled)
	}
}

// A link that leads nowhere is printed as it stands; what is no link is an error.
func TestLink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/usr/share/zoneinfo/Etc/UTC", dir+"/localtime"); err != nil {
		t.Fatal(err)
	}
	if err := link(t.Context(), []string{dir + "/localtime"}); err != nil {
		t.Error(err)
	}
	if err := link(t.Context(), []string{dir}); err == nil {
		t.Error("want no answer for what is no link")
	}
}
