package definition

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const whole = `name: mine
kernel: generic
modules:
  boot: [lists/boot.list]
  root: [/lists/root.list, ../more.list]
  packed: true
firmware: true
overlays: [files]
archives: ["app-{arch}.tar"]
consoles: [tty0, "ttyS1,57600n8"]
arguments: [quiet, mitigations=off]
user-data: seed.yaml
artefacts: [raw, qcow2]
`

func TestParse(t *testing.T) {
	got, err := Parse("/d/images/mine.yaml", []byte(whole))
	want := Parsed{FirmwareSet: true, PackedSet: true, Definition: Definition{
		File: "/d/images/mine.yaml", Name: "mine", Kernel: Generic, Boot: []string{"/d/images/lists/boot.list"},
		Root: []string{"/lists/root.list", "/d/more.list"}, Packed: true, Firmware: true, Overlays: []string{"/d/images/files"},
		Archives: []string{"/d/images/app-{arch}.tar"}, Arguments: []string{"quiet", "mitigations=off"}, Consoles: Consoles{"": {"tty0", "ttyS1,57600n8"}},
		UserData: "/d/images/seed.yaml", Artefacts: []string{"raw", "qcow2"},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Parse: got %+v, %v, want %+v", got, err, want)
	}
	if got, want := got.For("amd64").Cmdline(), "console=tty0 console=ttyS1,57600n8 quiet mitigations=off"; got != want {
		t.Errorf("Cmdline: got %q, want %q", got, want)
	}
}

func TestFor(t *testing.T) {
	d, err := Parse("/d/x.yaml", []byte("modules: {boot: [a.list, \"b-{arch}.list\"]}\noverlays: [\"{arch}/files\"]\nconsoles: {arm64: [ttyAMA0]}\nuser-data: \"{arch}.yaml\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := d.For("arm64")
	want := Definition{File: "/d/x.yaml", Boot: []string{"/d/a.list", "/d/b-arm64.list"}, Overlays: []string{"/d/arm64/files"},
		Consoles: Consoles{"": {"ttyAMA0"}}, UserData: "/d/arm64.yaml"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("For(arm64): got %+v, want %+v", got, want)
	}
	if got := d.For("amd64").Cmdline(); got != "" {
		t.Errorf("an architecture without consoles: got %q", got)
	}
	if d.Boot[1] != "/d/b-{arch}.list" {
		t.Error("For changed the definition itself")
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "f.yaml: want keys and values"},
		{"a list", "- a\n", "f.yaml: want keys and values"},
		{"no YAML", "a: [\n", "f.yaml: yaml: line"},
		{"unknown", "name: x\nkernal: cloud\n", "f.yaml:2: kernal: is not known: want one of archives, arguments"},
		{"unknown below", "modules:\n  boot: [a]\n  rood: [b]\n", "f.yaml:3: modules.rood: is not known: want one of boot, packed, root"},
		{"twice", "name: x\nname: y\n", "f.yaml:2: name: is there twice"},
		{"name", "name: My Image\n", `f.yaml:1: name: "My Image": want lower case`},
		{"name that is a path", "name: ../x\n", "f.yaml:1: name"},
		{"kernel", "kernel: rt\n", `f.yaml:1: kernel: "rt": want one of cloud, generic`},
		{"kernel is a list", "kernel: [cloud]\n", "f.yaml:1: kernel: want a text"},
		{"modules", "modules: boot.list\n", "f.yaml:1: modules: want keys"},
		{"module list", "modules:\n  boot: boot.list\n", "f.yaml:2: modules.boot: want a list"},
		{"entry", "overlays:\n- a\n- {b: c}\n", "f.yaml:3: overlays: want a text"},
		{"packed", "modules:\n  packed: some\n", "f.yaml:2: modules.packed: want true or false"},
		{"firmware", "firmware: perhaps\n", "f.yaml:1: firmware: want true or false"},
		{"argument of ours", "arguments: [quiet, keelson.slot=b]\n", "f.yaml:1: arguments: keelson.slot=b: arguments that begin"},
		{"console among arguments", "arguments: [console=ttyS0]\n", "consoles have a key of their own"},
		{"two in one", "arguments: [\"a b\"]\n", "want one argument an entry"},
		{"console", "consoles: [\"ttyS0 115200\"]\n", `"ttyS0 115200": want a device`},
		{"console of an unknown machine", "consoles: {vax: [tty0]}\n", "f.yaml:1: consoles.vax: is not known: want one of amd64, arm64"},
		{"archive", "archives: [app.tar.gz]\n", "f.yaml:1: archives: app.tar.gz: want archives"},
		{"artefacts", "artefacts: [raw, vdi]\n", `artefacts: "vdi": want one of raw, zst`},
		{"no artefacts", "artefacts: []\n", "want a list of some of"},
		{"empty", "user-data:\n", "f.yaml:1: user-data: want a text"},
		{"alias", "overlays: &a [b]\nconsoles: *a\n", "f.yaml:2: consoles: aliases are not wanted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Parse("f.yaml", []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Parse: got %v, want an error with %q", err, c.want)
			}
		})
	}
	_, err := Parse("f.yaml", []byte("name: A\nkernel: b\nc: d\n"))
	if err == nil || strings.Count(err.Error(), "f.yaml:") != 3 {
		t.Errorf("three mistakes: got %v, want all of them", err)
	}
}

// files reads definitions from a map.
func files(m map[string]string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		text, ok := m[name]
		if !ok {
			return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
		}
		return []byte(text), nil
	}
}

func TestBase(t *testing.T) {
	read := files(map[string]string{
		"/d/base.yaml":            whole,
		"/d/mine.yaml":            "base: ./base.yaml\nname: other\nmodules: {root: [own.list], packed: false}\noverlays: [own]\narchives: [own.tar]\narguments: [one=1]\nfirmware: false\nartefacts: [zst]\n",
		"/d/plain.yaml":           "base: /d/mine.yaml\nkernel: cloud\nconsoles: [hvc0]\nuser-data: own.yaml\n",
		"configs/images/foo.yaml": whole,
		"/d/stock.yaml":           "base: foo\n",
	})
	got, err := load("/d/plain.yaml", read, 0)
	want := Definition{
		File: "/d/plain.yaml", Name: "plain", Kernel: Cloud, Boot: []string{"/d/lists/boot.list"},
		Root: []string{"/lists/root.list", "/more.list", "/d/own.list"}, Overlays: []string{"/d/files", "/d/own"},
		Archives: []string{"/d/app-{arch}.tar", "/d/own.tar"}, Arguments: []string{"quiet", "mitigations=off", "one=1"}, Consoles: Consoles{"": {"hvc0"}}, UserData: "/d/own.yaml", Artefacts: []string{"zst"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("load:\ngot  %+v, %v\nwant %+v", got, err, want)
	}
	if got, err := load("/d/stock.yaml", read, 0); err != nil || got.Name != "stock" || got.Kernel != Generic || !got.Firmware || !got.Packed || got.UserData != "configs/images/seed.yaml" {
		t.Errorf("on a stock definition: got %+v, %v", got, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	read := files(map[string]string{
		"/d/self.yaml": "base: ./self.yaml\n", "/d/lost.yaml": "base: ./gone.yaml\n", "/d/half.yaml": "name: half\nkernel: cloud\n",
		"/d/wrong.yaml": "base: ./bad.yaml\n", "/d/bad.yaml": "name: x\nkernel: y\n",
	})
	for _, c := range []struct{ file, want string }{
		{"/d/none.yaml", "/d/none.yaml"},
		{"/d/self.yaml", "based on itself"},
		{"/d/lost.yaml", "/d/gone.yaml"},
		{"/d/half.yaml", "/d/half.yaml: modules: boot: is not there"},
		{"/d/wrong.yaml", "/d/bad.yaml:2: kernel"},
	} {
		if _, err := load(c.file, read, 0); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("load(%s): got %v, want an error with %q", c.file, err, c.want)
		}
	}
}

// The definitions of the project, with the files that they name.
func TestCommittedDefinitions(t *testing.T) {
	t.Chdir("../..")
	found, err := filepath.Glob(filepath.Join(stock, "*.yaml"))
	if err != nil || len(found) < 2 {
		t.Fatalf("definitions: got %v, %v", found, err)
	}
	names := map[string]string{}
	for _, file := range found {
		d, err := Load(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if other, ok := names[d.Name]; ok {
			t.Errorf("%s and %s have the same name", file, other)
		}
		names[d.Name] = file
		for _, arch := range []string{"amd64", "arm64"} {
			one := d.For(arch)
			if !strings.Contains(one.Cmdline(), "console=ttyS0,115200") {
				t.Errorf("%s for %s: no serial console: %s", file, arch, one.Cmdline())
			}
			for _, name := range slices.Concat(one.Boot, one.Root, one.Overlays) {
				if _, err := os.Stat(name); err != nil {
					t.Errorf("%s for %s: %v", file, arch, err)
				}
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("base: cloud\nmodules: {boot: []}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := Parse("f.yaml", text)
		if err != nil {
			return
		}
		if strings.ContainsAny(d.Name, "/ \n") || strings.Contains(d.Cmdline(), "\n") || strings.HasPrefix(d.Cmdline(), "keelson.") || strings.Contains(d.Cmdline(), " keelson.") {
			t.Errorf("Parse lets %q through: name %q, command line %q", text, d.Name, d.Cmdline())
		}
		for _, c := range strings.Fields(d.Cmdline())[:len(d.Consoles[""])] {
			if !strings.HasPrefix(c, "console=") {
				t.Errorf("Parse lets %q through: %s among the consoles", text, c)
			}
		}
	})
}
