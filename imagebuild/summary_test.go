package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/imagebuild/definition"
)

func say(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out, progress bytes.Buffer
	err := run(context.Background(), args, &out, &progress)
	return out.String(), err
}

func TestSummary(t *testing.T) {
	t.Chdir("..")
	for _, c := range []struct {
		definition string
		want, not  []string
	}{
		{"configs/images/cloud.yaml", []string{"keelson for amd64", "console=tty0 console=ttyS0,115200", "-cloud-amd64", "k8s.io/kubernetes v", ".qcow2", "overlays/base"}, []string{"firmware-"}},
		{"configs/images/metal.yaml", []string{"keelson-metal for amd64", "firmware-bnx2x", "boot-metal.list", "build/keelson-metal-amd64.raw.zst"}, []string{"-cloud-amd64", ".qcow2"}},
	} {
		got, err := say(t, "summary", "--definition", c.definition)
		if err != nil {
			t.Errorf("%s: %v", c.definition, err)
		}
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("summary of %s lacks %q:\n%s", c.definition, want, got)
			}
		}
		for _, not := range c.not {
			if strings.Contains(got, not) {
				t.Errorf("summary of %s has %q:\n%s", c.definition, not, got)
			}
		}
	}
}

// A definition of a user's own, outside of the tree, on a stock one.
func TestOwnDefinition(t *testing.T) {
	t.Chdir("..")
	dir := t.TempDir()
	file := filepath.Join(dir, "mine.yaml")
	if err := os.WriteFile(file, []byte("base: metal\narguments: [mitigations=off]\nmodules: {root: [own.list]}\nartefacts: [qcow2]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := say(t, "summary", "--definition", file); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "own.list")) {
		t.Errorf("a module list that is absent: got %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "own.list"), []byte("dummy\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := say(t, "summary", "--definition", file, "--artefacts", "ova,raw")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"mine for amd64", "cgroup_no_v1=all mitigations=off", filepath.Join(dir, "own.list") + ", 1 and", "build/mine-amd64.ova"} {
		if !strings.Contains(got, want) {
			t.Errorf("summary lacks %q:\n%s", want, got)
		}
	}
	if err := os.WriteFile(file, []byte("base: metal\nkernel: tiny\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := say(t, "build", "--definition", file); err == nil || !strings.Contains(err.Error(), file+":2: kernel") {
		t.Errorf("a mistake in a definition: got %v, want its line and key", err)
	}
}

// What a definition names is looked at as a build would, before anything is fetched.
func TestSummaryLooksAtWhatIsNamed(t *testing.T) {
	t.Chdir("..")
	dir := t.TempDir()
	file := filepath.Join(dir, "mine.yaml")
	for name, text := range map[string]string{
		"mine.yaml": "base: cloud\noverlays: [./files]\nuser-data: ./seed.yaml\n", "files/etc/motd": "hello\n",
		"seed.yaml": "#cloud-config\nhostname: n1\n", "plain": "",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := say(t, "summary", "--definition", file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{dir + "/files, 2 files and folders", dir + "/seed.yaml, 27 bytes"} {
		if !strings.Contains(got, want) {
			t.Errorf("summary lacks %q:\n%s", want, got)
		}
	}
	for _, c := range []struct{ name, text, want string }{
		{"no such overlay", "base: cloud\noverlays: [./gone]\n", file + ": overlays: lay over the root: stat " + dir + "/gone"},
		{"a file for an overlay", "base: cloud\noverlays: [./plain]\n", file + ": overlays: lay " + dir + "/plain over the root: it is no folder"},
		{"no such user-data", "base: cloud\nuser-data: ./gone\n", file + ": user-data: read user-data: open " + dir + "/gone"},
		{"user-data that is wrong", "base: cloud\nuser-data: ./bad.yaml\n", dir + "/bad.yaml: line 2: rke2.roll"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, text := range map[string]string{file: c.text, filepath.Join(dir, "bad.yaml"): "#cloud-config\nrke2: {roll: server}\n"} {
				if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := say(t, "summary", "--definition", file); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestUserDataOfAnImage(t *testing.T) {
	s, _ := newState(t)
	if got, err := s.userData(); err != nil || got != nil {
		t.Errorf("without user-data: got %q, %v", got, err)
	}
	s.config.Definition.UserData = s.part("seed")
	for _, c := range []struct{ text, want string }{
		{"#cloud-config\nhostname: n1\nrke2: {role: server}\n", ""},
		{"#cloud-config\nhostname: n1\nrke2: {roll: server}\n", "roll"},
	} {
		if err := os.WriteFile(s.part("seed"), []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := s.userData()
		if c.want == "" && (err != nil || string(got) != c.text) {
			t.Errorf("good user-data: got %q, %v", got, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("bad user-data: got %v, want an error with %q", err, c.want)
		}
	}
}

func TestPartsDir(t *testing.T) {
	for name, want := range map[string]string{"keelson": "build/amd64", "keelson-metal": "build/amd64-metal", "mine": "build/amd64-mine"} {
		if got := partsDir(name, "amd64"); got != want {
			t.Errorf("partsDir(%s): got %s, want %s", name, got, want)
		}
	}
}

// Every artefact that can be asked for has files of its own.
func TestFilesOfArtefacts(t *testing.T) {
	s := &state{config: Config{Out: "build/x.raw"}}
	seen := map[string]string{}
	for _, name := range definition.Artefacts() {
		files := s.filesOf(name)
		if len(files) == 0 {
			t.Errorf("%s: no file", name)
		}
		for _, file := range files {
			if other, ok := seen[file]; ok {
				t.Errorf("%s and %s are both %s", name, other, file)
			}
			seen[file] = name
		}
	}
	for file, want := range map[string]string{"build/x.raw": "raw", "build/x.raw.zst": "zst", "build/x.iso": "iso", "build/x.pxe.efi": "pxe", "build/x.ipxe": "pxe"} {
		if seen[file] != want {
			t.Errorf("%s: is of %q, want %s", file, seen[file], want)
		}
	}
}
