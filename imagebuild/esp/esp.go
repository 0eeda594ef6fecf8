// Package esp makes the EFI system partition: a FAT32 volume with the
// systemd-boot loader, a unified kernel image a slot, and for BIOS the
// configuration of GRUB, which takes kernel and initramfs out of that image.
//
// The volume is written by go-diskfs into a file of its own and then put
// right in the places where that library leaves something out or takes the
// current time (see finish). Two volumes of the same tree, time and serial
// are the same byte for byte. Contents says which files there are; Write does
// not care what they are.
package esp

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"keelson/imagebuild/tree"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
)

// chunk is what is written at a time. go-diskfs looks through the whole
// allocation and writes both FATs at every call, so calls must be few.
const chunk = 16 << 20

// MinSize is the least size of a volume: below it, the file system would have
// fewer clusters than FAT32 must have (65525, of one sector).
const MinSize = 34 << 20

// Options are what does not come from the tree.
type Options struct {
	Size   int64  // of the volume
	Label  string // up to 11 characters
	Serial uint32
	Time   time.Time // of every file; FAT begins with 1980
}

// Write makes the volume in f, which must be empty. Modes and owners of the
// tree are ignored: FAT has none. It refuses what FAT cannot hold.
func Write(f *os.File, t *tree.Tree, o Options) error {
	if o.Size < MinSize || o.Size%(1<<20) != 0 {
		return fmt.Errorf("esp: size %d: want whole MiB and at least %d", o.Size, MinSize)
	}
	if len(o.Label) == 0 || len(o.Label) > 11 {
		return fmt.Errorf("esp: label %q: want 1 to 11 characters", o.Label)
	}
	if y := o.Time.UTC().Year(); y < 1980 || y > 2107 {
		return fmt.Errorf("esp: time %v: FAT holds 1980 to 2107", o.Time)
	}
	entries, err := t.Entries()
	if err != nil {
		return fmt.Errorf("esp: %w", err)
	}
	if err := f.Truncate(o.Size); err != nil {
		return fmt.Errorf("esp: %w", err)
	}
	vol, err := fat32.Create(file.New(f, false), o.Size, 0, 512, o.Label, true)
	if err != nil {
		return fmt.Errorf("esp: %w", err)
	}
	buf := make([]byte, chunk)
	for _, e := range entries {
		if e.Path == "/" {
			continue
		}
		if err := add(vol, e, buf); err != nil {
			return fmt.Errorf("esp: %s: %w", e.Path, err)
		}
	}
	if err := finish(f, o); err != nil {
		return fmt.Errorf("esp: %w", err)
	}
	return nil
}

func add(vol *fat32.FileSystem, e tree.Entry, buf []byte) error {
	switch {
	case e.Mode.IsDir():
		return vol.Mkdir(e.Path)
	case !e.Mode.IsRegular():
		return fmt.Errorf("FAT holds files and directories only, not %v", e.Mode.Type())
	case e.Size == 0:
		// go-diskfs would give it a cluster, which FAT does not allow.
		return fmt.Errorf("empty files are not supported on the ESP")
	case e.Size >= 1<<32:
		return fmt.Errorf("size %d is more than FAT holds", e.Size)
	}
	out, err := vol.OpenFile(e.Path, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return err
	}
	in, err := e.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	var done int64
	for {
		n, err := io.ReadFull(in, buf)
		if n > 0 {
			if _, err := out.Write(buf[:n]); err != nil {
				return err
			}
			done += int64(n)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if done != e.Size {
		return fmt.Errorf("size changed while it was read: got %d bytes, want %d", done, e.Size)
	}
	return out.Close()
}

// Names of the files that firmware and loaders look for.
const (
	GrubDir    = "/grub"
	grubConfig = GrubDir + "/grub.cfg"
	loaderConf = "/loader/loader.conf"
	enrollDir  = "/loader/keys/auto" // systemd-boot(7)
)

// UKIPath is the unified kernel image of slot.
func UKIPath(slot string) string { return "/EFI/Linux/keelson-" + slot + ".efi" }

// Parts are the files of an ESP with one slot. GrubConfig stays empty where
// there is no BIOS.
type Parts struct {
	Arch       string // as Go names it
	Slot       string // a or b
	Loader     []byte // systemd-boot
	UKI        []byte
	GrubConfig []byte
	Enroll     map[string][]byte // Secure Boot variables to enrol, by name
}

// Contents lays out an ESP. The loader is there twice: at its own place, and
// at the fallback path that firmware starts without any variable set.
func Contents(p Parts) (*tree.Tree, error) {
	suffix := map[string]string{"amd64": "x64", "arm64": "aa64"}[p.Arch]
	if suffix == "" {
		return nil, fmt.Errorf("esp: architecture %q: want amd64 or arm64", p.Arch)
	}
	fallback := map[string]string{"x64": "BOOTX64.EFI", "aa64": "BOOTAA64.EFI"}[suffix]
	files := []struct {
		path     string
		content  []byte
		optional bool
	}{
		{"/EFI/BOOT/" + fallback, p.Loader, false},
		{"/EFI/systemd/systemd-boot" + suffix + ".efi", p.Loader, false},
		{UKIPath(p.Slot), p.UKI, false},
		{loaderConf, loaderConfig(p), false},
		{enrollDir + "/PK.auth", p.Enroll["PK"], true},
		{enrollDir + "/KEK.auth", p.Enroll["KEK"], true},
		{enrollDir + "/db.auth", p.Enroll["db"], true},
		{grubConfig, p.GrubConfig, true},
	}
	var t tree.Tree
	for _, f := range files {
		if len(f.content) == 0 {
			if f.optional {
				continue
			}
			return nil, fmt.Errorf("esp: %s is empty", f.path)
		}
		if err := t.Bytes(f.path, fs.FileMode(0o644), f.content); err != nil {
			return nil, fmt.Errorf("esp: %w", err)
		}
	}
	return &t, nil
}

// loaderConfig renders loader.conf(5). Keys that are on the ESP are enrolled
// by themselves: the loader does it where firmware is in setup mode, after a
// countdown of its own, and resets the machine.
func loaderConfig(p Parts) []byte {
	text := "timeout 0\neditor no\n"
	if len(p.Enroll) > 0 {
		text += "secure-boot-enroll force\n"
	}
	return []byte(text)
}
