package userdata

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"keelson/init/layout"
)

// Storage is what is asked of disks beside the system's own. Package datadisk
// carries it out.
type Storage struct {
	Disks       []Disk
	Filesystems []Filesystem
	Mounts      []Mount
	Swap        *Swap
}

// Place is where a document asks for something.
type Place struct {
	Source string
	Line   int
	Key    string
}

func (p Place) String() string { return fmt.Sprintf("%s: line %d: %s", p.Source, p.Line, p.Key) }

// Disk is one entry of disk_setup.
type Disk struct {
	Place
	Device    string
	Parts     []int // percent of the disk each
	Overwrite bool
}

// Filesystem is one entry of fs_setup; it is ext4.
type Filesystem struct {
	Place
	Device    string
	Partition int // of the device; 0: the device itself
	Label     string
	Overwrite bool
}

// Mount is one entry of mounts.
type Mount struct {
	Place
	Device  string
	Path    string
	Type    string // auto where nobody says
	Options []string
	NoFail  bool // go on without it
}

// Swap is the swap file.
type Swap struct {
	Place
	Path string
	Size int64 // 0: by the size of the memory
	Max  int64 // bound of that, 0 for none
}

// Power is what power_state asks for once the first boot is complete.
type Power struct {
	Action string // poweroff or reboot, "" for neither
	Delay  time.Duration
}

// diskSetup reads disk_setup (canonical/cloud-init, cc_disk_setup).
func (l *loader) diskSetup(n *yaml.Node) {
	l.cfg.Storage.Disks = nil
	for _, p := range l.Pairs(n, "disk_setup") {
		at := Join("disk_setup", p.Name)
		d := Disk{Place: Place{l.Source, p.Key.Line, at}, Device: l.device(p.Key, at)}
		for _, f := range l.Pairs(p.Value, at) {
			key := Join(at, f.Name)
			switch f.Name {
			case "table_type":
				if s, ok := l.String(f.Value, key); ok && s != "gpt" && s != "mbr" {
					l.Bad(f.Value, key, "%.20q is not known; write gpt", s)
				} else if s == "mbr" {
					l.Note(f.Value, key, "is made as gpt, which holds disks of every size")
				}
			case "layout":
				d.Parts = l.layout(f.Value, key)
			case "overwrite":
				d.Overwrite, _ = l.Bool(f.Value, key)
			default:
				l.Unknown(f, at, []string{"table_type", "layout", "overwrite"})
			}
		}
		if len(d.Parts) > 0 {
			l.cfg.Storage.Disks = append(l.cfg.Storage.Disks, d)
		}
	}
}

// layout reads true, or percents, each alone or with a type that Linux ignores.
func (l *loader) layout(n *yaml.Node, key string) []int {
	n = deref(n)
	if n.Kind == yaml.ScalarNode {
		if n.Value == "remove" {
			l.Bad(n, key, "remove is not supported: a table is not taken away; write overwrite: true and the layout that is wanted")
			return nil
		}
		if whole, ok := l.Bool(n, key); ok && whole {
			return []int{100}
		}
		return nil
	}
	var parts []int
	sum := 0
	for i, item := range l.Items(n, key) {
		at := fmt.Sprintf("%s[%d]", key, i)
		if item.Kind == yaml.SequenceNode {
			if len(item.Content) != 2 {
				l.Bad(item, at, "is a list of %d where percent and type are wanted", len(item.Content))
				continue
			}
			item = deref(item.Content[0])
		}
		if v, ok := l.Int(item, at, 1, 100); ok {
			parts, sum = append(parts, v), sum+v
		}
	}
	if sum > 100 || len(parts) > 64 {
		l.Bad(n, key, "is %d %% of the disk in %d partitions; use at most 100 and 64", sum, len(parts))
		return nil
	}
	return parts
}

// device checks the name of a disk or partition.
func (l *loader) device(n *yaml.Node, key string) string {
	s, ok := l.String(n, key)
	if !ok {
		return ""
	}
	if strings.HasPrefix(s, "ephemeral") || s == "swap" || s == "" || strings.Contains(s, "..") || strings.ContainsAny(s, "\x00\n ") {
		l.Bad(n, key, "%.60q is no device; write /dev/sdb, /dev/disk/by-id/..., LABEL=... or UUID=...", s)
		return ""
	}
	return s
}

// fsSetup reads fs_setup.
func (l *loader) fsSetup(n *yaml.Node) {
	l.cfg.Storage.Filesystems = nil
	for i, item := range l.Items(n, "fs_setup") {
		at := fmt.Sprintf("fs_setup[%d]", i)
		f := Filesystem{Place: Place{l.Source, item.Line, at}}
		partition := ""
		for _, p := range l.Pairs(item, at) {
			key := Join(at, p.Name)
			switch p.Name {
			case "device":
				f.Device = l.device(p.Value, key)
			case "label":
				if f.Label, _ = l.String(p.Value, key); len(f.Label) > 16 || strings.HasPrefix(f.Label, layout.LabelPrefix) {
					l.Bad(p.Value, key, "%.40q cannot be a label; use at most 16 letters, and none of the machine's own", f.Label)
				}
			case "filesystem":
				if s, ok := l.String(p.Value, key); ok && s != "ext4" {
					l.Bad(p.Value, key, "%.20q cannot be made on a node; write ext4", s)
				}
			case "partition":
				partition, _ = l.String(p.Value, key)
				if v, err := strconv.Atoi(partition); !slices.Contains([]string{"auto", "any", "none"}, partition) && (err != nil || v < 1 || v > 128) {
					l.Bad(p.Value, key, "%.20q is no partition; write its number, auto or none", partition)
				}
			case "overwrite":
				f.Overwrite, _ = l.Bool(p.Value, key)
			case "replace_fs", "extra_opts", "cmd":
				l.Note(p.Key, key, "is not supported: a file system is made in one way (passed over)")
			default:
				l.Unknown(p, at, []string{"device", "label", "filesystem", "partition", "overwrite"})
			}
		}
		if f.Device == "" {
			l.Bad(item, at, "has no device")
			continue
		}
		f.Partition, _ = strconv.Atoi(partition)
		if partition == "auto" || partition == "any" {
			// The first one, where this document makes some on the device.
			if slices.ContainsFunc(l.cfg.Storage.Disks, func(d Disk) bool { return d.Device == f.Device }) {
				f.Partition = 1
			}
		}
		l.cfg.Storage.Filesystems = append(l.cfg.Storage.Filesystems, f)
	}
}

// mounts reads lists of device, path, type, options and two words of fstab(5).
func (l *loader) mounts(n *yaml.Node) {
	l.cfg.Storage.Mounts = nil
	for i, item := range l.Items(n, "mounts") {
		at := fmt.Sprintf("mounts[%d]", i)
		words := l.Items(item, at)
		if len(words) == 0 || len(words) > 1 && isNull(words[1]) {
			continue // cloud-init: takes a mount of its own away, and there is none
		}
		if len(words) < 2 || len(words) > 6 {
			l.Bad(item, at, "has %d words; write [device, path, type, options]", len(words))
			continue
		}
		m := Mount{Place: Place{l.Source, item.Line, at}, Type: "auto", Device: l.device(words[0], at+"[0]")}
		m.Path, _ = l.String(words[1], at+"[1]")
		if !mountable(m.Path) {
			l.Bad(words[1], at+"[1]", "nothing can be mounted on %.80q; use /mnt, or a folder below /var or /run that is not the machine's own", m.Path)
		}
		if len(words) > 2 {
			if m.Type, _ = l.String(words[2], at+"[2]"); !slices.Contains([]string{"auto", "ext4", "xfs", "vfat"}, m.Type) {
				l.Bad(words[2], at+"[2]", "%.20q is not known; use auto, ext4, xfs or vfat", m.Type)
			}
		}
		options := "defaults,nofail"
		if len(words) > 3 {
			options, _ = l.String(words[3], at+"[3]")
		}
		for _, o := range strings.Split(options, ",") {
			switch {
			case o == "nofail":
				m.NoFail = true
			case o == "", o == "defaults", o == "_netdev", o == "auto", strings.HasPrefix(o, "x-"), strings.HasPrefix(o, "comment="):
			default:
				m.Options = append(m.Options, o)
			}
		}
		l.cfg.Storage.Mounts = append(l.cfg.Storage.Mounts, m)
	}
}

// mountable says where data disks may go: not over what the machine lives from.
func mountable(p string) bool {
	if !path.IsAbs(p) || path.Clean(p) != p || strings.ContainsAny(p, "\x00\n") {
		return false
	}
	for _, own := range []string{layout.StateKeelson, layout.Logs, layout.Run, "/var/lib", "/var/log", "/var/run", "/var/lock"} {
		if p == own || under(p, own) && own != "/var/lib" && own != "/var/log" || under(own, p) {
			return false
		}
	}
	return p == "/mnt" || under(p, "/var") || under(p, "/run")
}

// DefaultSwap is where the swap file is; cloud-init's /swap.img would be on the
// read-only root.
const DefaultSwap = layout.State + "/swap.img"

func (l *loader) swap(n *yaml.Node) {
	s := &Swap{Place: Place{l.Source, n.Line, "swap"}, Path: DefaultSwap}
	off := false
	for _, p := range l.Pairs(n, "swap") {
		key := Join("swap", p.Name)
		switch p.Name {
		case "filename":
			name, _ := l.String(p.Value, key)
			if name == "/swap.img" || name == "/swapfile" {
				l.Note(p.Value, key, "is on the read-only root; the file is %s", DefaultSwap)
			} else if s.Path = name; !under(name, layout.State) || !mountable(name) {
				l.Bad(p.Value, key, "%.80q cannot be the swap file; use one below /var", name)
			}
		case "size":
			if p.Value.Value != "auto" {
				before := len(l.Problems)
				s.Size = l.bytes(p.Value, key)
				off = s.Size == 0 && len(l.Problems) == before // in every unit
			}
		case "maxsize":
			s.Max = l.bytes(p.Value, key)
		default:
			l.Unknown(p, "swap", []string{"filename", "size", "maxsize"})
		}
	}
	if l.cfg.Storage.Swap = s; off {
		l.cfg.Storage.Swap = nil
	}
}

// bytes reads a size with the letters that cloud-init knows.
func (l *loader) bytes(n *yaml.Node, key string) int64 {
	s, ok := l.String(n, key)
	if !ok {
		return 0
	}
	digits := strings.TrimRight(strings.ToUpper(s), "BKMGT")
	unit := strings.TrimSuffix(strings.ToUpper(s)[len(digits):], "B")
	shift, known := map[string]uint{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]
	v, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || !known || v > 1<<50>>shift {
		l.Bad(n, key, "%.20q is no size; write one like 2G", s)
		return 0
	}
	return int64(v << shift)
}

// powerState reads power_state. A condition that is a program cannot be run.
func (l *loader) powerState(n *yaml.Node) {
	p := Power{}
	wanted, moded := true, false
	pairs := l.Pairs(n, "power_state")
	for _, f := range pairs {
		key := Join("power_state", f.Name)
		switch f.Name {
		case "mode":
			moded = true
			switch s, _ := l.String(f.Value, key); s {
			case "poweroff", "reboot":
				p.Action = s
			case "halt":
				p.Action = "poweroff"
			default:
				l.Bad(f.Value, key, "%.20q is not known; use poweroff or reboot", s)
			}
		case "delay":
			s, _ := l.String(f.Value, key)
			minutes, err := strconv.ParseUint(strings.TrimPrefix(s, "+"), 10, 16)
			if s != "now" && err != nil {
				l.Bad(f.Value, key, "%.20q is no delay; write now, or minutes like +5", s)
			}
			p.Delay = time.Duration(minutes) * time.Minute
		case "condition":
			wanted, _ = l.Bool(f.Value, key)
		case "message", "timeout":
		default:
			l.Unknown(f, "power_state", []string{"mode", "delay", "condition", "message", "timeout"})
		}
	}
	if len(pairs) > 0 && !moded { // cloud-init refuses it, too (cc_power_state_change.py)
		l.Bad(n, "power_state", "has no mode; add mode: poweroff or mode: reboot")
	}
	if l.cfg.Power = p; !wanted {
		l.cfg.Power = Power{}
	}
}
