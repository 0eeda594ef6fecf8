package cidata

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// reference reads a volume back with tools that have nothing in common with
// the library that wrote it. names are as the tool lists them.
type reference struct {
	format Format
	tool   string
	label  func(path string) *exec.Cmd
	read   func(path, name string) *exec.Cmd
}

func references() []reference {
	return []reference{
		{
			FAT, "mtype",
			func(p string) *exec.Cmd { return exec.Command("mlabel", "-i", p, "-s", "::") },
			func(p, n string) *exec.Cmd { return exec.Command("mtype", "-i", p, "::"+n) },
		},
		{
			ISO, "xorriso",
			func(p string) *exec.Cmd { return exec.Command("xorriso", "-indev", p, "-pvd_info") },
			func(p, n string) *exec.Cmd {
				out := filepath.Join(filepath.Dir(p), "extracted-"+n)
				return exec.Command("sh", "-c", `xorriso -osirrox on -indev "$1" -extract "/$2" "$3" >/dev/null 2>&1 && cat "$3"`, "sh", p, n, out)
			},
		},
	}
}

func TestVolumesAreReadByOthers(t *testing.T) {
	big := bytes.Repeat([]byte("# a long document, as a CA bundle would make it\n"), 3000)
	v := Volume{
		UserData: append([]byte("#cloud-config\n"), big...),
		MetaData: []byte("instance-id: one\n"), NetworkConfig: []byte("version: 2\n"),
	}
	for _, ref := range references() {
		t.Run(string(ref.format), func(t *testing.T) {
			if _, err := exec.LookPath(ref.tool); err != nil {
				t.Skipf("SKIPPED: %s is not installed (packages mtools, xorriso)", ref.tool)
			}
			path := filepath.Join(t.TempDir(), "cidata.img")
			if err := v.Write(path, ref.format); err != nil {
				t.Fatal(err)
			}
			if out, err := ref.label(path).CombinedOutput(); err != nil || !strings.Contains(string(out), Label) {
				t.Errorf("label: got %q, %v, want %s", out, err, Label)
			}
			for _, d := range v.documents() {
				got, err := ref.read(path, d.name).Output()
				if err != nil {
					t.Fatalf("read %s: %v: %s", d.name, err, got)
				}
				if !bytes.Equal(got, d.data) {
					t.Errorf("%s: got %d bytes, want the %d that were written", d.name, len(got), len(d.data))
				}
			}
			if got, err := ref.read(path, "vendor-data").Output(); err == nil && len(got) > 0 {
				t.Errorf("vendor-data: got %q, want none on the volume", got)
			}
		})
	}
}

// A volume is written over the one before when a test corrects a document.
func TestWriteReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cidata.img")
	for _, format := range []Format{FAT, ISO, FAT} {
		if err := (Volume{UserData: []byte("#cloud-config\n")}).Write(path, format); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) != 1 {
		t.Errorf("files beside the volume: got %v, want none", left)
	}
}

func TestWriteRefuses(t *testing.T) {
	if err := (Volume{}).Write(filepath.Join(t.TempDir(), "x"), "squashfs"); err == nil || !strings.Contains(err.Error(), "want vfat or iso9660") {
		t.Errorf("unknown format: got %v", err)
	}
	for _, f := range []Format{FAT, ISO} {
		if err := (Volume{}).Write("/no/such/dir/cidata.img", f); err == nil {
			t.Errorf("%s in a folder that is not there: got no error", f)
		}
	}
}

func TestRender(t *testing.T) {
	doc, err := CloudConfig{
		Hostname: "cp-1",
		RKE2:     map[string]any{"role": "server", "tls-san": []string{"a", "b"}},
		WriteFiles: []File{{
			Path: "/etc/rancher/rke2/registries.yaml", Content: "mirrors:\n  docker.io: {}\n", Permissions: "0600",
		}},
	}.Render()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(doc, []byte("#cloud-config\n")) {
		t.Errorf("document: got %q, want its header first", doc)
	}
	var back CloudConfig
	if err := yaml.Unmarshal(doc, &back); err != nil {
		t.Fatal(err)
	}
	if back.Hostname != "cp-1" || back.WriteFiles[0].Content != "mirrors:\n  docker.io: {}\n" || back.RKE2["role"] != "server" {
		t.Errorf("document: got %+v back", back)
	}
	meta, err := Meta{InstanceID: "one"}.Render()
	if got, want := string(meta), "instance-id: one\n"; err != nil || got != want {
		t.Errorf("meta-data: got %q, %v, want %q", got, err, want)
	}
}
