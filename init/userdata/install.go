package userdata

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Install asks an installation medium to install itself to a disk.
type Install struct {
	Place
	Disk DiskMatch
	Wipe bool   // the disk may hold something
	Then string // ThenReboot or ThenPowerOff
}

// What follows an installation.
const (
	ThenReboot   = "reboot"
	ThenPowerOff = "poweroff"
)

// DiskMatch selects a disk: every field that is set must hold. Without any, the smallest disk that the system fits on is taken.
type DiskMatch struct {
	Path       string // /dev/sda
	ByID       string // a name of /dev/disk/by-id, as udev makes them
	Serial     string
	WWN        string
	Model      string // a pattern as of path.Match
	Transport  string // one of transports()
	Rotational *bool
	MinSize    int64 // bytes; 0: no bound
	MaxSize    int64
}

// Exact says that the match names one disk and no other.
func (d DiskMatch) Exact() bool { return d.Path != "" || d.ByID != "" || d.Serial != "" || d.WWN != "" }

func transports() []string { return []string{"ata", "mmc", "nvme", "sas", "scsi", "usb", "virtio"} }

func installKeys() []string { return []string{"disk", "then", "wipe"} }

func diskKeys() []string {
	return []string{"by-id", "max-size", "min-size", "model", "path", "rotational", "serial", "size", "transport", "wwn"}
}

// install reads the section. A later document replaces an earlier one's whole: half of a choice of disk is a wrong choice.
func (l *loader) install(n *yaml.Node) {
	in := &Install{Place: Place{l.Source, n.Line, "install"}, Then: ThenReboot}
	chosen := false
	for _, p := range l.Pairs(n, "install") {
		key := Join("install", p.Name)
		switch p.Name {
		case "disk":
			chosen = true
			l.disk(p.Value, &in.Disk)
		case "wipe":
			in.Wipe, _ = l.Bool(p.Value, key)
		case "then":
			if s, ok := l.String(p.Value, key); ok && s != ThenReboot && s != ThenPowerOff {
				l.Bad(p.Value, key, "%q: want %s or %s", s, ThenReboot, ThenPowerOff)
			} else if ok {
				in.Then = s
			}
		default:
			l.Unknown(p, "install", installKeys())
		}
	}
	switch {
	case !chosen:
		l.Bad(n, "install", "names no disk; write disk: smallest, a path like disk: /dev/sda, or a map of %s", strings.Join(diskKeys(), ", "))
	case in.Wipe && !in.Disk.Exact():
		l.Bad(n, "install.wipe", "true needs a disk that is named exactly; give install.disk.path, by-id, serial or wwn")
	}
	l.cfg.Install = in
}

// disk reads a path, the word smallest, or a map.
func (l *loader) disk(n *yaml.Node, d *DiskMatch) {
	n = deref(n)
	if n.Kind == yaml.ScalarNode && !isNull(n) {
		if n.Value == "smallest" {
			return
		}
		l.diskPath(n, "install.disk", d)
		return
	}
	pairs := l.Pairs(n, "install.disk")
	if len(pairs) == 0 && n.Kind == yaml.MappingNode {
		l.Bad(n, "install.disk", "says nothing; write smallest, a path like /dev/sda, or one of %s", strings.Join(diskKeys(), ", "))
	}
	for _, p := range pairs {
		key := Join("install.disk", p.Name)
		switch p.Name {
		case "path":
			l.diskPath(p.Value, key, d)
		case "by-id":
			if s, ok := l.String(p.Value, key); ok {
				l.byID(p.Value, key, strings.TrimPrefix(s, byID), d)
			}
		case "serial", "wwn", "model":
			s, ok := l.String(p.Value, key)
			if ok && strings.TrimSpace(s) == "" {
				l.Bad(p.Value, key, "is empty")
				continue
			}
			switch p.Name {
			case "serial":
				d.Serial = s
			case "wwn":
				d.WWN = s
			default:
				if _, err := path.Match(s, ""); err != nil {
					l.Bad(p.Value, key, "%q is not a pattern; * stands for any text, ? for one character", s)
				}
				d.Model = s
			}
		case "transport":
			s, ok := l.String(p.Value, key)
			if ok && !slices.Contains(transports(), s) {
				l.Bad(p.Value, key, "%q: want one of %s", s, strings.Join(transports(), ", "))
			}
			d.Transport = s
		case "rotational":
			if v, ok := l.Bool(p.Value, key); ok {
				d.Rotational = &v
			}
		case "size", "min-size", "max-size":
			l.diskSize(p, key, d)
		default:
			l.Unknown(p, "install.disk", diskKeys())
		}
	}
	if d.MaxSize > 0 && d.MinSize > d.MaxSize {
		l.Bad(n, "install.disk", "no disk has min-size (%d bytes) and is not above max-size (%d bytes); size alone means both", d.MinSize, d.MaxSize)
	}
}

// byID is the folder of the names that a disk keeps wherever it is plugged in.
const byID = "/dev/disk/by-id/"

func (l *loader) diskPath(n *yaml.Node, key string, d *DiskMatch) {
	s, ok := l.String(n, key)
	if !ok {
		return
	}
	if name, ok := strings.CutPrefix(s, byID); ok {
		l.byID(n, key, name, d)
		return
	}
	if name, ok := strings.CutPrefix(s, "/dev/"); !ok || !plainName(name) {
		l.Bad(n, key, "%q is no disk; write smallest, a path like /dev/sda, or one like %s...", s, byID)
		return
	}
	d.Path = s
}

func (l *loader) byID(n *yaml.Node, key, name string, d *DiskMatch) {
	if !plainName(name) {
		l.Bad(n, key, "%q is no name of %s", name, byID)
		return
	}
	d.ByID = name
}

// plainName is one name of a folder.
func plainName(s string) bool {
	return s != "" && s != "." && s != ".." && !strings.ContainsAny(s, "/ \t\n\x00")
}

// diskSize reads a size as people and disk makers write it: decimal units with B, binary ones with iB. size is exact to the
// unit: makers round.
func (l *loader) diskSize(p Pair, key string, d *DiskMatch) {
	s, ok := l.String(p.Value, key)
	if !ok {
		return
	}
	size, unit, ok := ParseSize(s)
	if !ok {
		l.Bad(p.Value, key, "%q is not a size; write it like 480GB or 1TiB", s)
		return
	}
	switch p.Name {
	case "min-size":
		d.MinSize = size
	case "max-size":
		d.MaxSize = size
	default:
		d.MinSize, d.MaxSize = size-unit/2, size+unit/2
	}
}

// ParseSize reads a number with a unit, or bytes without one, and says how much the unit is.
func ParseSize(s string) (size, unit int64, ok bool) {
	m := regexp.MustCompile(`^([0-9]{1,15}) ?([kKMGT]?)(i?)(B?)$`).FindStringSubmatch(strings.TrimSpace(s))
	if m == nil || m[2] == "" && m[3] != "" || m[2] != "" && m[4] == "" {
		return 0, 0, false
	}
	base := int64(1000)
	if m[3] == "i" {
		base = 1024
	}
	unit = 1
	for range strings.Index(" KMGT", strings.ToUpper(m[2] + " ")[:1]) {
		unit *= base
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > (1<<60)/unit {
		return 0, 0, false
	}
	return n * unit, unit, true
}
