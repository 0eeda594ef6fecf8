package scenario

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keelson/testvm/machine"
	"keelson/testvm/qemu"
)

// What the image may weigh on x86_64, everything that a node needs included: as the disk that a machine sees, and as
// what is downloaded of it.
const (
	mostOfDisk     = 1 << 30
	mostOfDownload = 130_000_000
)

// Every format of the image boots to PID 1's last step. What a cloud unpacks
// before it starts a machine is unpacked here by the tool that its
// documentation names.
func TestScenarioFormats(t *testing.T) {
	needVM(t)
	for ext, most := range map[string]int64{".raw": mostOfDisk, ".raw.zst": mostOfDownload} {
		info, err := os.Stat(strings.TrimSuffix(*flagImage, ".raw") + ext)
		if err != nil {
			t.Fatalf("%v: make the formats first (make formats)", err)
		}
		if *flagArch == "amd64" && info.Size() > most {
			t.Errorf("the image as %s has %d bytes, want at most %d", ext, info.Size(), most)
		}
	}
	for _, c := range []struct {
		ext, format string
		firmware    qemu.Firmware
		unpack      func(ctx context.Context, image, dir string) (string, *exec.Cmd)
	}{
		{".qcow2", "qcow2", qemu.UEFI, nil},
		{".vhd", "vpc", qemu.BIOS, nil}, // Azure's generation 1
		{".vmdk", "vmdk", qemu.BIOS, nil},
		{".ova", "vmdk", qemu.UEFI, func(ctx context.Context, image, dir string) (string, *exec.Cmd) {
			disk := strings.TrimSuffix(filepath.Base(image), ".ova") + "-disk1.vmdk"
			return disk, exec.CommandContext(ctx, "tar", "-C", dir, "-xf", image, disk)
		}},
		{".gce.tar.gz", "raw", qemu.UEFI, func(ctx context.Context, image, dir string) (string, *exec.Cmd) {
			return "disk.raw", exec.CommandContext(ctx, "tar", "-C", dir, "-xzf", image)
		}},
		{".raw.zst", "raw", qemu.BIOS, func(ctx context.Context, image, dir string) (string, *exec.Cmd) {
			return "unpacked.raw", exec.CommandContext(ctx, "zstd", "-q", "-d", "--sparse", "-o", filepath.Join(dir, "unpacked.raw"), image)
		}},
	} {
		t.Run(c.ext[1:], func(t *testing.T) {
			image, err := filepath.Abs(strings.TrimSuffix(*flagImage, ".raw") + c.ext)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(image); err != nil {
				t.Fatalf("%v: make the formats first (make formats)", err)
			}
			if c.unpack != nil {
				dir := t.TempDir()
				name, cmd := c.unpack(within(t, changeLimit), image, dir)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("unpack %s: %v: %s", image, err, out)
				}
				image = filepath.Join(dir, name)
			}
			m := newMachine(t, c.firmware, func(config *machine.Config) { config.Image, config.Format = image, c.format })
			start(t, m)
			if _, err := m.Booted(within(t, bootLimit)); err != nil {
				t.Fatal(err)
			}
		})
	}
}
