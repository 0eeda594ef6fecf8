package grub

import (
	"fmt"
	"strings"
)

// Entry is one thing to boot.
type Entry struct {
	Title   string // shown when a boot fails and the menu comes up
	Kernel  string // path on the partition of grub.cfg
	Initrd  string
	Cmdline string // the same as in the unified kernel image
}

// RenderConfig makes grub.cfg. The first entry is booted at once; the menu
// appears when that fails. $root is the partition that the core image's
// prefix names, so no search takes place and a second Keelson disk in the
// machine cannot be taken for this one.
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
		for _, s := range []string{e.Title, e.Kernel, e.Initrd, e.Cmdline} {
			if err := quotable(s); err != nil {
				return nil, fmt.Errorf("grub.cfg: entry %d: %w", i, err)
			}
		}
		args := make([]string, 0, 16)
		for _, a := range strings.Fields(e.Cmdline) {
			args = append(args, "'"+a+"'")
		}
		fmt.Fprintf(&b, "menuentry '%s' {\n\tlinux '%s' %s\n\tinitrd '%s'\n}\n",
			e.Title, e.Kernel, strings.Join(args, " "), e.Initrd)
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
