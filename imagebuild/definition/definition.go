// Package definition reads what goes into an image: configs/images/*.yaml, or
// a file of a user's own anywhere. It opens the definitions that a definition
// is based on and nothing else; whether the files it names exist is seen when
// they are used. The builder's stages take what it says.
package definition

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Definition is one image.
type Definition struct {
	File      string   // where it stands
	Name      string   // how its files are called
	Kernel    string   // Cloud or Generic
	Boot      []string // files of module lists: the initramfs
	Root      []string // files of module lists: the root, besides those of Boot
	Packed    bool     // modules of the root alone stay compressed
	Firmware  bool     // ship the firmware that the modules name
	Overlays  []string // folders laid over the root
	Arguments []string // kernel arguments besides consoles
	Consoles  Consoles
	Archives  []string // tar archives of images that containerd is given
	UserData  string   // file that goes to the ESP; "" for none
	Artefacts []string // what is made; see Artefacts
}

// Consoles of the kernel by architecture; the last of a list is /dev/console.
// Those under "" are for every architecture that is not named.
type Consoles map[string][]string

// For is the definition for one architecture, as Go names it: "{arch}" in its
// paths is replaced, and Consoles has one list.
func (d Definition) For(arch string) Definition {
	for _, list := range []*[]string{&d.Boot, &d.Root, &d.Overlays, &d.Archives} {
		var out []string
		for _, name := range *list {
			out = append(out, strings.ReplaceAll(name, "{arch}", arch))
		}
		*list = out
	}
	d.UserData = strings.ReplaceAll(d.UserData, "{arch}", arch)
	own, ok := d.Consoles[arch]
	if !ok {
		own = d.Consoles[""]
	}
	d.Consoles = Consoles{"": own}
	return d
}

// Kernel flavours.
const (
	Cloud   = "cloud"   // drivers of clouds and hypervisors only
	Generic = "generic" // drivers of servers too
)

// Artefacts that can be made. The raw disk is always made: the others come
// from it.
func Artefacts() []string {
	return []string{"raw", "zst", "qcow2", "vhd", "vmdk", "ova", "gce", PXE, ISO}
}

// PXE are the files that a machine starts from over the network; it runs the same root in memory.
const PXE = "pxe"

// ISO is the artefact that is not the disk in another format, but a medium that
// runs the same root.
const ISO = "iso"

// maxBases is how many definitions may stand on each other.
const maxBases = 8

// Load reads a definition and those that it is based on.
func Load(file string) (Definition, error) {
	return load(file, func(name string) ([]byte, error) { return os.ReadFile(name) }, 0)
}

// load reads with a function, for tests.
func load(file string, read func(string) ([]byte, error), depth int) (Definition, error) {
	if depth > maxBases {
		return Definition{}, fmt.Errorf("%s: more than %d definitions are based on each other: is one based on itself?", file, maxBases)
	}
	text, err := read(file)
	if err != nil {
		return Definition{}, fmt.Errorf("read image definition: %w", err)
	}
	d, err := Parse(file, text)
	if err != nil {
		return Definition{}, err
	}
	own := d.Definition
	if d.Base != "" {
		base, err := load(d.Base, read, depth+1)
		if err != nil {
			return Definition{}, err
		}
		own = over(base, d)
	}
	return own, own.check()
}

// over is d on its base: lists of things that go in are longer, everything
// else is replaced where d says something.
func over(base Definition, d Parsed) Definition {
	out := d.Definition
	out.Boot = slices.Concat(base.Boot, d.Boot)
	out.Root = slices.Concat(base.Root, d.Root)
	out.Overlays = slices.Concat(base.Overlays, d.Overlays)
	out.Archives = slices.Concat(base.Archives, d.Archives)
	out.Arguments = slices.Concat(base.Arguments, d.Arguments)
	if out.Name == "" {
		out.Name = strings.TrimSuffix(filepath.Base(d.File), filepath.Ext(d.File))
	}
	if out.Kernel == "" {
		out.Kernel = base.Kernel
	}
	if out.Consoles == nil {
		out.Consoles = base.Consoles
	}
	if out.Artefacts == nil {
		out.Artefacts = base.Artefacts
	}
	if out.UserData == "" {
		out.UserData = base.UserData
	}
	if !d.PackedSet {
		out.Packed = base.Packed
	}
	if !d.FirmwareSet {
		out.Firmware = base.Firmware
	}
	return out
}

// check looks for what an image cannot do without.
func (d Definition) check() error {
	var missing []error
	for _, c := range []struct {
		key   string
		there bool
	}{
		{"name", d.Name != ""}, {"kernel", d.Kernel != ""}, {"modules: boot", len(d.Boot) > 0}, {"modules: root", len(d.Root) > 0},
		{"overlays", len(d.Overlays) > 0}, {"consoles", len(d.Consoles) > 0}, {"artefacts", len(d.Artefacts) > 0},
	} {
		if !c.there {
			missing = append(missing, fmt.Errorf("%s: %s: is not there, neither here nor in a base", d.File, c.key))
		}
	}
	return errors.Join(missing...)
}

// Cmdline is the static part of the kernel's command line, of a definition for
// one architecture.
func (d Definition) Cmdline() string {
	var words []string
	for _, c := range d.Consoles[""] {
		words = append(words, "console="+c)
	}
	return strings.Join(append(words, d.Arguments...), " ")
}
