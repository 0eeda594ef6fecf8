package apply

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/init/userdata"
)

func machine(t *testing.T) Config {
	t.Helper()
	c := Config{Root: t.TempDir(), Record: "/var/lib/keelson/written-files.json"}
	for path, text := range map[string]string{
		"/usr/share/zoneinfo/Etc/UTC": "u", "/usr/share/zoneinfo/Europe/Berlin": "b",
		bundle: "BUNDLE\n", "/proc/sys/vm/swappiness": "60\n",
	} {
		if err := c.writeFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c Config) read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(c.path(path))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

const conf = "/etc/rancher/rke2/config.yaml.d/10-x.yaml"

func TestApplyFiles(t *testing.T) {
	c := machine(t)
	cfg := &userdata.Config{Files: []userdata.File{
		{Path: conf, Data: []byte("late"), Mode: 0o600, Defer: true},
		{Path: conf, Data: []byte("early"), Mode: 0o600},
		{Path: "/var/lib/x", Data: []byte("a"), Mode: 0o644},
		{Path: "/var/lib/x", Data: []byte("b"), Mode: 0o644, Append: true},
		{Path: "/var/lib/log", Data: []byte("one"), Mode: 0o644, Append: true},
		{Path: "/var/lib/log", Data: []byte("two"), Mode: 0o644, Append: true},
	}}
	if err := c.writeFile("/var/lib/log", []byte("zero"), 0o644); err != nil {
		t.Fatal(err)
	}
	for boot := range 3 { // idempotent
		if err := Apply(c, cfg); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]string{conf: "late", "/var/lib/x": "ab", "/var/lib/log": "zeroonetwo"} {
			if got := c.read(t, path); got != want {
				t.Errorf("boot %d: %s: got %q, want %q", boot, path, got, want)
			}
		}
	}
	info, err := os.Stat(c.path(conf))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
}

// What an earlier user-data wrote to the disk must not stay in force.
func TestApplyRemovesEarlierFiles(t *testing.T) {
	c := machine(t)
	if err := c.writeFile("/etc/rancher/rke2/own.yaml", []byte("by hand"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Apply(c, &userdata.Config{Files: []userdata.File{{Path: conf, Data: []byte("x"), Mode: 0o644}}}); err != nil {
		t.Fatal(err)
	}
	if err := Apply(c, &userdata.Config{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.path(conf)); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", conf, err)
	}
	if got := c.read(t, "/etc/rancher/rke2/own.yaml"); got != "by hand" {
		t.Errorf("a file of somebody else: got %q", got)
	}
}

func TestApplyErrorsNameTheirPlace(t *testing.T) {
	c := machine(t)
	if err := c.writeFile("/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	err := Apply(c, &userdata.Config{
		Files:    []userdata.File{{Path: "/file/below", Source: "ESP: user-data", Line: 7, Mode: 0o644}, {Path: "/etc/good", Data: []byte("g"), Mode: 0o644}},
		Timezone: "Mars/Olympus",
		Sysctls:  []userdata.Sysctl{{Key: "no.such.key", Value: "1"}, {Key: "vm.swappiness", Value: "5"}},
	})
	for _, want := range []string{"ESP: user-data: line 7: write_files: /file/below: not a directory", `timezone: "Mars/Olympus"`, "no.such.key"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if c.read(t, "/etc/good") != "g" || c.read(t, "/proc/sys/vm/swappiness") != "5\n" {
		t.Error("what is right was not applied")
	}
}

func TestTimezoneAndCertificates(t *testing.T) {
	c := machine(t)
	for _, zone := range []struct{ in, want string }{{"", "Etc/UTC"}, {"Europe/Berlin", "Europe/Berlin"}} {
		if err := c.timezone(zone.in); err != nil {
			t.Fatal(err)
		}
		if got, err := os.Readlink(c.path("/etc/localtime")); err != nil || got != filepath.Join("/usr/share/zoneinfo", zone.want) {
			t.Errorf("timezone %q: got %s, %v", zone.in, got, err)
		}
	}
	if err := c.certificates(userdata.CACerts{Trusted: []string{"CERT1", "CERT2\n"}}); err != nil {
		t.Fatal(err)
	}
	if got, want := c.read(t, bundle), "BUNDLE\nCERT1\nCERT2\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := c.certificates(userdata.CACerts{RemoveDefaults: true, Trusted: []string{"CERT3"}}); err != nil {
		t.Fatal(err)
	}
	if got, want := c.read(t, bundle), "CERT3\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNames(t *testing.T) {
	c := machine(t)
	var set string
	err := Names(c, "cp-1", "cp-1.example.org", "0123", func(b []byte) error { set = string(b); return nil })
	if err != nil || set != "cp-1" {
		t.Fatalf("got %q, %v", set, err)
	}
	if got := c.read(t, "/etc/hostname") + c.read(t, "/etc/machine-id"); got != "cp-1\n0123\n" {
		t.Errorf("got %q", got)
	}
	if got := c.read(t, "/etc/hosts"); !strings.Contains(got, "127.0.0.1 localhost\n127.0.1.1 cp-1.example.org cp-1\n") {
		t.Errorf("hosts: %q", got)
	}
}
