package userdata

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// honoured says of every key that has an effect what that is.
func honoured() map[string]string {
	return map[string]string{
		"ca_certs":            "`trusted` certificates go beside those of the image, with `remove_defaults` in their place",
		"disk_setup":          "partitions of data disks, always GPT; a disk that holds anything is touched with `overwrite: true` alone, the system's own never",
		"fqdn":                "for `/etc/hosts`; its first label is the host name where `hostname` is missing",
		"fs_setup":            "ext4 on data disks; what holds anything is touched with `overwrite: true` alone",
		"hostname":            "the name of the machine and of its node",
		"install":             "has a CD or stick install itself to a `disk` (a path, `smallest`, or a map of `path`, `by-id`, `serial`, `wwn`, `model`, `transport`, `rotational`, `size`, `min-size`, `max-size`), `wipe: true` whatever that holds, `then: reboot` or `poweroff`; an installed system passes over it (Keelson's own key)",
		"modules":             "kernel modules to load (Keelson's own key)",
		"mounts":              "ext4, xfs or vfat of data disks on `/mnt` or below `/var` and `/run`; ext4 is checked first",
		"ntp":                 "`servers`, `pools` and `enabled`; time is kept by init itself",
		"power_state":         "`mode: poweroff` or `reboot`, once for an instance, after the boot; `condition` is true or false",
		"rke2":                "the keys of RKE2's `config.yaml`, and `role: server` or `agent` (Keelson's own key)",
		"ssh_authorized_keys": "written to `/etc/ssh/authorized_keys`, for the SSH server of a debug overlay of your own; our images have none",
		"swap":                "a file below `/var`; `size: auto` is the size of the memory, at most a quarter of the free disk; a file that holds something else is not touched",
		"sysctls":             "kernel settings (Keelson's own key)",
		"timezone":            "a name of the time zone database",
		"write_files":         "below `/etc`, `/run`, `/tmp` and `/var`, with encodings, permissions, `append` and `defer`; the owner is root",
	}
}

// Support renders the table of every key of cloud-init: what is honoured, what
// is met without doing anything, and what is not and why.
func Support() string {
	var b strings.Builder
	row := func(key, state, why string) { fmt.Fprintf(&b, "| `%s` | %s | %s |\n", key, state, why) }
	b.WriteString("| key | | |\n|---|---|---|\n")
	for _, key := range keys() {
		row(key, "honoured", honoured()[key])
	}
	why := map[string]string{"growpart": "the state grows with its disk at every boot", "resize_rootfs": "the root has the size of its image",
		"preserve_hostname": "a machine keeps its name", "manage_etc_hosts": "init writes `/etc/hosts`"}
	for _, key := range slices.Sorted(slices.Values(settled())) {
		text := why[key]
		if text == "" {
			text = "nothing has to be done for it"
		}
		row(key, "accepted", text)
	}
	reasons := unsupported()
	for _, key := range slices.Sorted(maps.Keys(reasons)) {
		row(key, "not supported", reasons[key])
	}
	return b.String()
}
