package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"keelson/imagebuild/definition"
	"keelson/imagebuild/input/gobuild"
	"keelson/imagebuild/memo"
	"keelson/init/layout"
)

func newState(t *testing.T) (*state, *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	remembered, err := memo.Load(filepath.Join(dir, "memo.json"))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	return &state{config: Config{Dir: dir, Log: slog.New(progress{&log})}, memo: remembered}, &log
}

func TestRunStage(t *testing.T) {
	s, log := newState(t)
	runs, key := 0, "one"
	var fail error
	st := stage{name: "part", key: func(*state) (string, error) { return key, nil }, files: parts("out"), run: func(context.Context, *state) error {
		runs++
		if fail != nil {
			return fail
		}
		return os.WriteFile(s.part("out"), []byte(key), 0o644)
	}}
	do := func(what string, want int) {
		t.Helper()
		_, err := runStage(context.Background(), s, st)
		if (err != nil) != (fail != nil) || runs != want {
			t.Errorf("%s: %d runs, %v, want %d", what, runs, err, want)
		}
	}
	do("first", 1)
	do("nothing changed", 1)
	key = "two"
	do("another key", 2)
	if err := os.WriteFile(s.part("out"), []byte("spoiled"), 0o644); err != nil {
		t.Fatal(err)
	}
	do("file was changed", 3)
	if err := os.Remove(s.part("out")); err != nil {
		t.Fatal(err)
	}
	do("file is gone", 4)
	fail, key = errors.New("no"), "three"
	do("it fails", 5)
	fail, key = nil, "two"
	do("after a failure", 6)
	if got := strings.Count(log.String(), "part: unchanged"); got != 1 {
		t.Errorf("log has %d lines of what is unchanged, want 1:\n%s", got, log)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := runStage(ctx, s, st); !errors.Is(err, context.Canceled) {
		t.Errorf("after Ctrl-C: got %v", err)
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	err := printTable(&out, []result{{name: "root", size: 12_340_000, took: time.Second}, {name: "disk", took: 0, skipped: true}}, 2*time.Second, 200_000_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"root   12.3      1.0", "unchanged", "total", "peak memory  200.0"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("table lacks %q:\n%s", want, out.String())
		}
	}
}

func TestSystemImages(t *testing.T) {
	modules := map[string]string{"k8s.io/kubernetes": "v1.2.3", "go.etcd.io/etcd/server/v3": "v3", "github.com/coredns/coredns": "v1", "github.com/flannel-io/flannel": "v0"}
	seen := map[string]bool{}
	for _, image := range systemImages(modules) {
		if seen[image.Name] {
			t.Errorf("%s is there twice", image.Name)
		}
		seen[image.Name] = true
		program := image.Entrypoint[0]
		if slices.Contains(image.Layers, "bundle") && !slices.Contains(applets(), program) {
			t.Errorf("%s starts %s, which is no name of the bundle", image.Name, program)
		}
		if program == "kube-proxy" || program == "flanneld" {
			if !slices.Contains(image.Layers, "nft") {
				t.Errorf("%s has no nft", image.Name)
			}
		}
	}
	for _, want := range []string{"registry.keelson.internal/kube-apiserver:v1.2.3", "registry.keelson.internal/etcd:v3", "registry.keelson.internal/pause:3.10"} {
		if !seen[want] {
			t.Errorf("there is no image %s", want)
		}
	}
}

func TestCmdline(t *testing.T) {
	t.Chdir("..")
	s, _ := newState(t)
	image, err := definition.Load("configs/images/cloud.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s.config.Definition = image.For("amd64")
	s.source.Epoch = time.Unix(1700000000, 0)
	s.verity = layout.Verity{RootHash: bytes.Repeat([]byte{1}, 32), DataBlocks: 7, Salt: bytes.Repeat([]byte{2}, layout.VeritySaltLen)}
	if err := writeCmdline(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(s.part("cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text))
	for _, want := range []string{"console=ttyS0,115200", "cgroup_no_v1=all", "keelson.slot=a", "keelson.epoch=1700000000", "keelson.verity=" + s.verity.String()} {
		if !slices.Contains(fields, want) {
			t.Errorf("command line lacks %s: %s", want, text)
		}
	}
}

func TestReadSource(t *testing.T) {
	t.Chdir("..")
	s, err := readSource(context.Background(), Config{Epoch: "1700000000"})
	if err != nil {
		t.Fatal(err)
	}
	if s.Epoch.Unix() != 1700000000 || s.Version != "20231114.221320" || s.BundleEpoch != s.Epoch {
		t.Errorf("source: got %v, version %s", s.Epoch, s.Version)
	}
	if _, err := gobuild.Stamps(s.Modules, "c", s.Epoch); err != nil {
		t.Errorf("go.mod: %v", err)
	}
	release := string(s.osRelease())
	for _, want := range []string{"ID=keelson\n", "IMAGE_VERSION=20231114.221320\n", "BUILD_ID="} {
		if !strings.Contains(release, want) {
			t.Errorf("os-release lacks %q:\n%s", want, release)
		}
	}
	if _, err := readSource(context.Background(), Config{Epoch: "yesterday"}); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH=yesterday") {
		t.Errorf("readSource: got %v", err)
	}
	t.Chdir(t.TempDir())
	if _, err := readSource(context.Background(), Config{}); err == nil || !strings.Contains(err.Error(), "go.mod") {
		t.Errorf("readSource elsewhere: got %v", err)
	}
}

func TestRunRefuses(t *testing.T) {
	t.Chdir("..")
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"definition", []string{"build", "--definition", "/nonexistent.yaml"}, "/nonexistent.yaml"},
		{"nothing", nil, "no command"},
		{"unknown", []string{"paint"}, `no command "paint"`},
		{"flag", []string{"build", "--colour"}, "colour"},
		{"argument", []string{"build", "x"}, `argument "x"`},
		{"architecture", []string{"build", "--arch", "vax"}, `architecture "vax"`},
		{"lint of nothing", []string{"lint"}, "one directory or image"},
		{"lint of what is absent", []string{"lint", "/nonexistent"}, "nonexistent"},
		{"artefact", []string{"build", "--artefacts", "qcow3"}, `artefact "qcow3"`},
		{"purpose", []string{"deps", "--for", "fun"}, `purpose "fun"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, progress bytes.Buffer
			if err := run(context.Background(), c.args, &out, &progress); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("run(%q): got %v, want an error with %q", c.args, err, c.want)
			}
		})
	}
}

func TestLintCommand(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := lint(dir, "amd64", &out); err != nil || !strings.Contains(out.String(), "nothing wrong") {
		t.Errorf("lint: got %v, %q", err, out.String())
	}
	if err := os.WriteFile(filepath.Join(dir, "usr/bin/sh"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := lint(dir, "amd64", &out); err == nil || !strings.Contains(err.Error(), "/usr/bin/sh") {
		t.Errorf("lint with a shell: got %v", err)
	}
	if err := lint(filepath.Join(dir, "usr/bin/sh"), "amd64", &out); err == nil || !strings.Contains(err.Error(), "neither an EROFS nor a disk") {
		t.Errorf("lint of an empty file: got %v", err)
	}
}

func TestNeeds(t *testing.T) {
	for _, purpose := range []string{"build", "run", "check", "conformance"} {
		all, err := needs(purpose, runtime.GOARCH)
		if err != nil || len(all) == 0 {
			t.Errorf("needs(%s): got %v, %v", purpose, all, err)
		}
		for _, n := range all {
			if n.pkg == "" || n.why == "" || (n.program == "") == (n.file == "") {
				t.Errorf("needs(%s): %+v: want a package, a reason, and a program or a file", purpose, n)
			}
		}
	}
	if (need{program: "no-such-program-of-keelson"}).here() || (need{file: "/nonexistent"}).here() {
		t.Error("what is absent is here")
	}
}

func TestReplaceLeavesTheOldFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	put := func(text string, fail error) error {
		return replace(name, func(f *os.File) error {
			if _, err := f.WriteString(text); err != nil {
				return err
			}
			return fail
		})
	}
	if err := put("old", nil); err != nil {
		t.Fatal(err)
	}
	if err := put("half", errors.New("no")); err == nil {
		t.Error("replace: got no error")
	}
	if got, err := os.ReadFile(name); err != nil || string(got) != "old" {
		t.Errorf("file: got %q, %v, want the old one", got, err)
	}
	if _, err := os.Stat(name + ".part"); !os.IsNotExist(err) {
		t.Errorf("the half file is still there: %v", err)
	}
}
