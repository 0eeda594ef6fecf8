package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseArtefacts(t *testing.T) {
	for _, c := range []struct{ value, want, wrong string }{
		{"raw", "raw", ""},
		{"qcow2,vhd", "qcow2 vhd", ""},
		{"all", "raw zst qcow2 vhd vmdk ova gce pxe", ""},
		{"qcow2,vdi", "", `artefact "vdi"`},
		{"", "", `artefact ""`},
	} {
		got, err := parseArtefacts(c.value)
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("parseArtefacts(%q): got %v, want an error with %q", c.value, err, c.wrong)
			}
			continue
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("parseArtefacts(%q): got %v, %v, want %s", c.value, got, err, c.want)
		}
	}
}

func names(stages []stage) string {
	var out []string
	for _, st := range stages {
		out = append(out, st.name)
	}
	return strings.Join(out, " ")
}

func TestFormatStages(t *testing.T) {
	for _, c := range []struct{ wanted, want string }{
		{"raw", ""}, {"raw gce", "gce"}, {"ova", "vmdk ova"}, {"ova zst vmdk", "zst vmdk ova"},
	} {
		if got := names(formatStages(strings.Fields(c.wanted))); got != c.want {
			t.Errorf("stages for %s: got %q, want %q", c.wanted, got, c.want)
		}
	}
	var seen []string
	for _, f := range formats() {
		if f.from != "" && !slices.Contains(seen, f.from) {
			t.Errorf("%s is made from %s, which does not come before it", f.name, f.from)
		}
		seen = append(seen, f.name)
	}
}

// Every format of a small disk, twice: the second time nothing is made, and
// after the disk's parts have changed, everything.
func TestFormatsAreMadeOnce(t *testing.T) {
	s, log := newState(t)
	s.config.Out = filepath.Join(s.config.Dir, "small.raw")
	s.source.Epoch, s.source.Version = time.Unix(1_700_000_000, 0), "1"
	raw := bytes.Repeat([]byte("keelson\n"), 1<<18) // 2 MiB
	for name, content := range map[string][]byte{"small.raw": raw, "core.img": {1}, "esp.img": {2}, "root.erofs": {3}} {
		if err := os.WriteFile(s.part(name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	all, err := parseArtefacts("all")
	if err != nil {
		t.Fatal(err)
	}
	do := func(what string, unchanged int) {
		t.Helper()
		log.Reset()
		for _, st := range formatStages(all) {
			if _, err := runStage(context.Background(), s, st); err != nil {
				t.Fatalf("%s: %s: %v", what, st.name, err)
			}
		}
		if got := strings.Count(log.String(), "unchanged"); got != unchanged {
			t.Errorf("%s: %d formats are unchanged, want %d:\n%s", what, got, unchanged, log)
		}
	}
	do("first", 0)
	do("again", len(formats()))
	if err := os.WriteFile(s.part("esp.img"), []byte{2, 2}, 0o644); err != nil {
		t.Fatal(err)
	}
	do("another disk", 0)
	if err := os.Remove(s.artefact(".vmdk")); err != nil {
		t.Fatal(err)
	}
	do("one is gone", len(formats())-1)

	tool, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("SKIPPED: qemu-img is absent (Debian: qemu-utils)")
	}
	for ext, name := range map[string]string{".qcow2": "qcow2", ".vmdk": "vmdk", ".vhd": "vpc"} {
		if out, err := exec.Command(tool, "compare", "-f", "raw", "-F", name, s.config.Out, s.artefact(ext)).CombinedOutput(); err != nil {
			t.Errorf("qemu-img compare with %s: %v: %s", ext, err, out)
		}
	}
}
