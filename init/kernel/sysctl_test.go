package kernel

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParseSysctls(t *testing.T) {
	got, err := ParseSysctls("k.conf", []byte("# c\n; c\n\nnet.ipv4.ip_forward = 1\n-net/ipv4/conf/eth0.1/forwarding=0\nkernel.core_pattern=|/bin/false a=b\n"))
	want := []Setting{
		{"net.ipv4.ip_forward", "1", false}, {"net/ipv4/conf/eth0.1/forwarding", "0", true}, {"kernel.core_pattern", "|/bin/false a=b", false},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"a.b\n", "= 1\n", "../../etc/passwd = 1\n", "a..b = 1\n"} {
		if _, err := ParseSysctls("k.conf", []byte("\n"+bad)); err == nil || !strings.Contains(err.Error(), "k.conf: line 2") {
			t.Errorf("%q: got %v, want an error with file and line", bad, err)
		}
	}
}

func TestSysctlPath(t *testing.T) {
	for in, want := range map[string]string{
		"net.ipv4.ip_forward":             "net/ipv4/ip_forward",
		"net/ipv4/conf/eth0.1/forwarding": "net/ipv4/conf/eth0.1/forwarding",
		"net.ipv4.conf.eth0/1.forwarding": "net/ipv4/conf/eth0.1/forwarding",
		"vm":                              "vm",
	} {
		if got, err := sysctlPath(in); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", in, got, err, want)
		}
	}
}

func FuzzParseSysctls(f *testing.F) {
	f.Add([]byte("a.b = c\n-d/e=f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, _ := ParseSysctls("f", b)
		for _, s := range list {
			if p, err := sysctlPath(s.Key); err != nil || !filepath.IsLocal(p) {
				t.Errorf("%q: key %q leads to %q, %v", b, s.Key, p, err)
			}
		}
	})
}

func TestApplySysctls(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "vm"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := ApplySysctls(root, []Setting{{"no.such", "1", false}, {"no.other", "1", true}, {"vm.swappiness", "5", false}})
	if err == nil || !strings.Contains(err.Error(), "no.such = 1") || strings.Contains(err.Error(), "no.other") {
		t.Errorf("got %v, want an error about no.such alone", err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "vm/swappiness")); err != nil || string(b) != "5\n" {
		t.Errorf("setting after a bad one: got %q, %v", b, err)
	}
}

func TestLoadModuleNames(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"b.conf": "veth\n", "a.conf": "# c\noverlay\n\nbr_netfilter\n", "c.txt": "no\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := LoadModuleNames(dir)
	if want := []string{"overlay", "br_netfilter", "veth"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if err := os.WriteFile(filepath.Join(dir, "z.conf"), []byte("two words\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadModuleNames(dir); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("two words: got %v", err)
	}
}

// The settings that the image carries must parse.
func TestConfigsParse(t *testing.T) {
	if _, err := LoadSysctls("../../configs/sysctl.d"); err != nil {
		t.Error(err)
	}
	if _, err := LoadModuleNames("../../configs/modules-load.d"); err != nil {
		t.Error(err)
	}
}
