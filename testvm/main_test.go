package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/testvm/console"
	"keelson/testvm/qemu"
)

func TestParseRun(t *testing.T) {
	c, err := parseRun([]string{"--image", "x.raw", "--userdata", "u.yaml", "--firmware", "bios", "--name", "two", "--memory", "2048", "--cpus", "1", "--once"})
	if err != nil {
		t.Fatal(err)
	}
	if c.image != "x.raw" || c.userData != "u.yaml" || c.firmware != qemu.BIOS || c.name != "two" || c.memory != 2048 || c.cpus != 1 || !c.ready {
		t.Errorf("flags: got %+v", c)
	}
	if c, err := parseRun(nil); err != nil || c.firmware != qemu.UEFI || c.name != "server" || c.memory != 4096 || c.cpus != 2 {
		t.Errorf("no flags: got %+v, %v", c, err)
	}
	for _, bad := range []struct {
		name string
		args []string
		want string
	}{
		{"firmware", []string{"--firmware", "coreboot"}, "want uefi, bios or direct"},
		{"a path as the name", []string{"--name", "../x"}, "want a name"},
		{"no name", []string{"--name", ""}, "want a name"},
		{"more words", []string{"now"}, `unknown argument "now"`},
	} {
		t.Run(bad.name, func(t *testing.T) {
			if _, err := parseRun(bad.args); err == nil || !strings.Contains(err.Error(), bad.want) {
				t.Errorf("error: got %v, want one with %q", err, bad.want)
			}
		})
	}
}

func TestParseBench(t *testing.T) {
	c, err := parseBench([]string{"--image", "out/k.raw", "--runs", "3", "--settle", "0", "--rebuild=false"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Built != filepath.Join("out", "amd64") || c.Dir != filepath.Join("out", "vm") || c.Runs != 3 || c.Settle != 0 || c.Rebuild {
		t.Errorf("flags: got %+v", c)
	}
	if _, err := parseBench([]string{"--runs", "0"}); err == nil {
		t.Error("no runs: got no error")
	}
	if got := resultFile(c); got != filepath.Join("out", "bench.json") {
		t.Errorf("result: got %s", got)
	}
	if c, err = parseBench([]string{"--image", "out/k.raw", "--part", "join"}); err != nil || c.Part != "join" || resultFile(c) != filepath.Join("out", "bench-join.json") {
		t.Errorf("part: got %+v, %v", c, err)
	}
	if _, err := parseBench([]string{"--part", "everything"}); err == nil || !strings.Contains(err.Error(), "loadbalancer") {
		t.Errorf("a part that is none: got %v, want those that are", err)
	}
}

func TestCommandsSayWhatIsWrong(t *testing.T) {
	stderr := os.Stderr
	defer func() { os.Stderr = stderr }()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	os.Stderr = null // the flag package's own words
	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"nothing", "testvm run", nil},
		{"unknown", "testvm run", []string{"fly"}},
		{"no user-data", "read user-data", []string{"run", "--userdata", "/no/such/file"}},
		{"unknown flag", "not defined", []string{"bench", "--fast"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := command(context.Background(), c.args); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error: got %v, want one with %q", err, c.want)
			}
		})
	}
	for _, verb := range []string{"run", "bench"} {
		if err := command(context.Background(), []string{verb, "-help"}); err != nil && !errors.Is(err, flag.ErrHelp) {
			t.Errorf("%s -help: got %v", verb, err)
		}
	}
}

func TestProgress(t *testing.T) {
	var out bytes.Buffer
	began := time.Unix(1000, 0)
	p := &progress{out: &out, began: began}
	for i, text := range []string{
		"SeaBIOS (version 1.16.2)", "keelson: boot: mount state: ok (123 ms)", "keelson: boot: clock: no server answers",
		"keelson: boot: complete in 3.214 s", "keelson: node: etcd ready (9.1 s)", "keelson: user-data: cidata: line 4: rke2.x: unknown",
		"keelson: waiting for corrected user-data", "keelson: halted: no root", "[ 1.0] Kernel panic - not syncing: VFS", "keelson: shutdown: power off",
	} {
		p.line(console.Line{At: began.Add(time.Duration(i) * time.Second), Text: text})
	}
	want := `[   1.00 s] mount state                                 123 ms
[   2.00 s] clock: FAILED: no server answers
[   3.00 s] PID 1 is done, 3.214 s after the kernel's start
[   4.00 s] node: etcd ready
[   5.00 s] user-data: cidata: line 4: rke2.x: unknown
[   6.00 s] waiting for corrected user-data
[   7.00 s] halted: no root
[   8.00 s] [ 1.0] Kernel panic - not syncing: VFS
[   9.00 s] shutdown: power off
`
	if out.String() != want {
		t.Errorf("progress: got\n%swant\n%s", out.String(), want)
	}
	(&progress{out: io.Discard}).line(console.Line{})
}

func TestArchOf(t *testing.T) {
	for image, want := range map[string]string{"build/keelson-arm64.raw": "arm64", "build/keelson-amd64.raw": "amd64", "mine.raw": "amd64"} {
		if got := archOf(image); got != want {
			t.Errorf("archOf(%s): got %s, want %s", image, got, want)
		}
	}
}
