package grub

import (
	"fmt"
	"strings"
)

// Entry is one thing to boot: a unified kernel image, out of which GRUB takes
// kernel and initramfs.
type Entry struct {
	Title   string // shown when a boot fails and the menu comes up
	Image   string // path on the partition of grub.cfg
	Kernel  Extent // in it
	Initrd  Extent
	Cmdline string // the same as in the image
}

// Extent is a range of sectors of 512 bytes of a file.
type Extent struct{ First, Count int64 }

// String writes e as GRUB's block lists are written (manual, 13.3).
func (e Extent) String() string { return fmt.Sprintf("%d+%d", e.First, e.Count) }

// RenderConfig makes grub.cfg. The first entry is booted at once; the menu
// appears when that fails. $root is the partition that the core image's
// prefix names, so no search takes place and a second Keelson disk in the
// machine cannot be taken for this one. The image becomes a device, "uki", so
// that its sections are block lists of it, wherever the file lies.
func RenderConfig(entries []Entry) ([]byte, error) {
	var b strings.Builder
	b.WriteString(`set timeout=0
set default=0
set gfxpayload=text
if serial --unit=0 --speed=115200 ; then
	terminal_input console serial
	terminal_output console serial
fi
`)
	if len(entries) == 0 {
		return nil, fmt.Errorf("grub.cfg: no entries")
	}
	for i, e := range entries {
		e.Cmdline = strings.TrimSpace(e.Cmdline)
		for _, s := range []string{e.Title, e.Image, e.Cmdline} {
			if err := quotable(s); err != nil {
				return nil, fmt.Errorf("grub.cfg: entry %d: %w", i, err)
			}
		}
		for _, at := range []Extent{e.Kernel, e.Initrd} {
			if at.First <= 0 || at.Count <= 0 {
				return nil, fmt.Errorf("grub.cfg: entry %d: sectors %s of %s: want a range behind its headers", i, at, e.Image)
			}
		}
		args := make([]string, 0, 16)
		for _, a := range strings.Fields(e.Cmdline) {
			args = append(args, "'"+a+"'")
		}
		fmt.Fprintf(&b, "menuentry '%s' {\n\tloopback uki '%s'\n\tlinux (uki)%s %s\n\tinitrd (uki)%s\n}\n",
			e.Title, e.Image, e.Kernel, strings.Join(args, " "), e.Initrd)
	}
	return []byte(b.String()), nil
}

// quotable refuses what single quotes of GRUB's shell cannot hold, and
// arguments with spaces in double quotes, which Fields would tear apart.
func quotable(s string) error {
	if strings.TrimSpace(s) == "" {
		return fmt.Errorf("an empty title, path or command line")
	}
	for _, c := range s {
		if c < ' ' || c > '~' || c == '\'' || c == '"' {
			return fmt.Errorf("%q: character %q cannot be passed through grub.cfg", s, c)
		}
	}
	return nil
}
