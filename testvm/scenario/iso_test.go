package scenario

import (
	"os"
	"path/filepath"
	"testing"

	"keelson/testvm/machine"
	"keelson/testvm/qemu"
)

// The ISO starts as CD and as stick, by both firmwares, to PID 1's last step; one way to Ready. The machine has no other disk:
// its state is in memory, and the medium is as it was in the end.
func TestScenarioISO(t *testing.T) {
	needVM(t)
	iso, err := filepath.Abs("../../build/keelson-" + *flagArch + ".iso")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(iso); err != nil {
		t.Fatalf("%v: make the ISO first (make iso)", err)
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
		})
	}
}
