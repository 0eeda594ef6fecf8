package scenario

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"keelson/testvm/machine"
	"keelson/testvm/qemu"
)

// mostOfISO is what one may weigh on x86_64, everything that a node needs included.
const mostOfISO = 420_000_000

// The ISO starts as CD and as stick, by both firmwares, to PID 1's last step; one way to Ready. The machine has no other disk:
// its state is in memory, and the medium is as it was in the end.
func TestScenarioISO(t *testing.T) {
	needVM(t)
	iso, err := filepath.Abs("../../build/keelson-" + *flagArch + ".iso")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(iso)
	if err != nil {
		t.Fatalf("%v: make the ISO first (make iso)", err)
	}
	if *flagArch == "amd64" && info.Size() > mostOfISO {
		t.Errorf("the ISO has %d bytes, want at most %d", info.Size(), mostOfISO)
	}
	for _, c := range []struct {
		name     string
		bus      qemu.Bus
		firmware qemu.Firmware
		ready    bool
	}{
		{"CD by BIOS", qemu.CD, qemu.BIOS, false},
		{"CD by UEFI", qemu.CD, qemu.UEFI, true},
		{"stick by BIOS", qemu.USB, qemu.BIOS, false},
		{"stick by UEFI", qemu.USB, qemu.UEFI, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if *flagArch == "arm64" && c.firmware == qemu.BIOS {
				t.Skip("arm64 machines have no BIOS")
			}
			m := newMachine(t, c.firmware, func(config *machine.Config) {
				config.Image, config.Bus, config.Memory = iso, c.bus, 6144
			})
			start(t, m)
			if _, err := m.Booted(within(t, bootLimit)); err != nil {
				t.Fatal(err)
			}
			if c.ready {
				becomesReady(t, m)
			}
			if err := m.Shutdown(within(t, shutdownLimit)); err != nil {
				t.Fatal(err)
			}
			if err := m.Untouched(within(t, time.Minute)); err != nil {
				t.Errorf("the medium: %v", err)
			}
		})
	}
}

// The disk for servers starts by each firmware, wherever it is plugged in.
func TestScenarioMetal(t *testing.T) {
	needVM(t)
	image, err := filepath.Abs("../../build/keelson-metal-" + *flagArch + ".raw")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(image); err != nil {
		t.Fatalf("%v: make the disk first (make iso)", err)
	}
	for _, c := range []struct {
		name     string
		bus      qemu.Bus
		firmware qemu.Firmware
	}{
		{"NVMe by UEFI", qemu.NVMe, qemu.UEFI},
		{"NVMe by BIOS", qemu.NVMe, qemu.BIOS},
		{"AHCI by UEFI", qemu.SATA, qemu.UEFI},
		{"AHCI by BIOS", qemu.SATA, qemu.BIOS},
		{"virtio-scsi by UEFI", qemu.SCSI, qemu.UEFI},
		{"virtio-scsi by BIOS", qemu.SCSI, qemu.BIOS},
		{"USB by UEFI", qemu.USB, qemu.UEFI},
		{"USB by BIOS", qemu.USB, qemu.BIOS},
	} {
		t.Run(c.name, func(t *testing.T) {
			if *flagArch == "arm64" && c.firmware == qemu.BIOS {
				t.Skip("arm64 machines have no BIOS")
			}
			m := newMachine(t, c.firmware, func(config *machine.Config) { config.Image, config.Bus = image, c.bus })
			start(t, m)
			if _, err := m.Booted(within(t, bootLimit)); err != nil {
				t.Fatal(err)
			}
		})
	}
}
