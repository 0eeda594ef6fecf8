package install

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"keelson/init/userdata"
)

// Choice says that user-data chooses no disk that can be taken. Another document, or another disk, helps.
type Choice struct {
	Key  string // of the document
	Text string
}

func (c *Choice) Error() string { return c.Text }

const diskKey = "install.disk"

// Choose takes the disk that user-data asks for, the smallest where several are like that. medium is the disk that the
// machine runs from; need is what the system takes. It goes by what a disk is, never by what it holds: the same disk is
// chosen before and after it was written.
func Choose(disks []Disk, want userdata.DiskMatch, medium string, need int64) (Disk, error) {
	var fit []Disk
	var others []string
	for _, d := range disks {
		if why := unlike(d, want, medium, need); why != "" {
			others = append(others, fmt.Sprintf("%s %s", d, why))
			continue
		}
		fit = append(fit, d)
	}
	if len(fit) == 0 {
		text := "no disk can be taken: the machine shows none"
		if len(others) > 0 {
			text = "no disk can be taken: " + strings.Join(others, "; ")
		}
		return Disk{}, &Choice{diskKey, text + "; name another, or attach one"}
	}
	if want.Exact() && len(fit) > 1 {
		var names []string
		for _, d := range fit {
			names = append(names, d.String())
		}
		return Disk{}, &Choice{diskKey, "is more than one disk: " + strings.Join(names, "; ") + "; name one of them by its path"}
	}
	// Names change from boot to boot, serial numbers do not.
	slices.SortFunc(fit, func(a, b Disk) int {
		return cmp.Or(cmp.Compare(a.Size, b.Size), cmp.Compare(a.Serial, b.Serial), cmp.Compare(a.WWN, b.WWN), cmp.Compare(a.Name, b.Name))
	})
	return fit[0], nil
}

// unlike says why a disk is not the one, "" if it is.
func unlike(d Disk, want userdata.DiskMatch, medium string, need int64) string {
	is := func(what, have, wanted string) string {
		if have == "" {
			have = "none"
		}
		return fmt.Sprintf("has %s %s, not %s", what, have, wanted)
	}
	switch {
	case want.Path != "" && want.Path != d.Path():
		return "is not " + want.Path
	case want.ByID != "" && !hasID(d, want.ByID):
		return "is not " + want.ByID
	case want.Serial != "" && want.Serial != d.Serial:
		return is("serial", d.Serial, want.Serial)
	case want.WWN != "" && bareWWN(want.WWN) != d.WWN:
		return is("wwn", d.WWN, want.WWN)
	case want.Model != "" && !like(want.Model, d.Model):
		return is("model", d.Model, want.Model)
	case want.Transport != "" && want.Transport != d.Transport:
		return is("transport", d.Transport, want.Transport)
	case want.Rotational != nil && *want.Rotational != d.Rotational:
		return fmt.Sprintf("has rotational %v", d.Rotational)
	case want.MinSize > 0 && d.Size < want.MinSize || want.MaxSize > 0 && d.Size > want.MaxSize:
		return "is of another size"
	case d.Name == medium:
		return "is the medium that the machine runs from"
	case d.ReadOnly:
		return "cannot be written to"
	case d.Sector != 512 && d.Sector != 4096:
		return fmt.Sprintf("has sectors of %d bytes, and the system is made for 512 and 4096", d.Sector)
	case d.Size < need:
		return "is too small: the system needs " + Bytes(need)
	case d.Transport == "usb" && want.Transport == "" && !want.Exact():
		return "is a USB disk, which is taken where it is named or transport is usb"
	}
	return ""
}

func like(pattern, model string) bool {
	// A slash is a character like others here.
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "/", "_")) }
	ok, err := path.Match(plain(pattern), plain(model))
	return err == nil && ok
}

// hasID compares with the names that udev gives (systemd, rules.d/60-persistent-storage.rules): they end in the serial
// number, with a number of the part of a USB device or of an NVMe namespace behind it, or in the world wide name. For NVMe
// udev makes the name without the namespace as well, which is that of a controller's only one.
func hasID(d Disk, id string) bool {
	plain := func(s string) string { return strings.ReplaceAll(s, " ", "_") }
	if d.WWN != "" {
		for _, prefix := range []string{"wwn-0x", "scsi-3", "nvme-eui.", "nvme-uuid.", "nvme-"} {
			if id == prefix+plain(d.WWN) {
				return true
			}
		}
	}
	serial := plain(d.Serial)
	if len(serial) < 3 {
		return false
	}
	if d.Transport == "usb" {
		id = strings.TrimSuffix(id, "-0:0")
	}
	if d.Namespace != "" && strings.HasSuffix(id, "_"+serial+"_"+d.Namespace) {
		return true
	}
	return strings.HasSuffix(id, "-"+serial) || strings.HasSuffix(id, "_"+serial)
}
