package scenario

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/testvm/cidata"
	"keelson/testvm/machine"
	"keelson/testvm/qemu"
)

// installLimit is for an installation from power to restart.
const installLimit = 6 * time.Minute

// mediumPath is the ISO.
func mediumPath(t *testing.T) string {
	t.Helper()
	iso, err := filepath.Abs("../../build/keelson-" + *flagArch + ".iso")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(iso); err != nil {
		t.Fatalf("%v: make the ISO first (make iso)", err)
	}
	return iso
}

// installer is a machine with the medium, and user-data that asks for an installation.
func installer(t *testing.T, firmware qemu.Firmware, section string, change func(*machine.Config)) *machine.Machine {
	t.Helper()
	return newMachine(t, firmware, func(c *machine.Config) {
		c.Image, c.Medium, c.Insert = "", mediumPath(t), qemu.CD
		// The BIOS goes past a volume that is no disk.
		c.SeedFormat, c.Seed = cidata.ISO, cidata.Volume{UserData: installData(t, section), MetaData: []byte("instance-id: i-1\n")}
		if change != nil {
			change(c)
		}
	})
}

func installData(t *testing.T, section string) []byte {
	t.Helper()
	return append(userData(t), "install: "+section+"\n"...)
}

// restarted waits for the end of an installation: QEMU was told to end where the guest resets itself.
func restarted(t *testing.T, m *machine.Machine) {
	t.Helper()
	ctx := within(t, installLimit)
	if _, err := m.Expect(ctx, `keelson: install: done in `); err != nil {
		t.Fatal(err)
	}
	if reason, err := m.Ended(ctx); err != nil || reason != "guest-reset" {
		t.Fatalf("after the installation the machine ended by %q, %v, want guest-reset", reason, err)
	}
	inOrder(t, m, m.Mark())
}

// To an empty disk with 1 GiB of memory, and from it to Ready, without any source of user-data.
func TestScenarioInstall(t *testing.T) {
	needVM(t)
	m := installer(t, qemu.UEFI, "{disk: smallest}", func(c *machine.Config) { c.Memory = 1024 })
	start(t, m)
	if _, err := m.Expect(within(t, bootLimit), `keelson: install: plan: Keelson .* to /dev/vda \(21\.5 GB, virtio, serial system\)`); err != nil {
		t.Fatal(err)
	}
	cutOnce(t, m)
	restarted(t, m)
	if err := m.Unseed(); err != nil {
		t.Fatal(err)
	}
	m.Refit(4096, qemu.UEFI)
	start(t, m) // the disk comes before the medium
	node, err := becomesReady(t, m).NodeReady(within(t, changeLimit))
	if err != nil || node.Name != "keelson-1" {
		t.Errorf("node %s, %v, want the name of the installer's user-data", node.Name, err)
	}
}

// To a disk with sectors of 4 KiB, by NVMe, and from it to PID 1's last step, although the firmware prefers the medium,
// which would wait for user-data now.
func TestScenarioInstallLargeSectors(t *testing.T) {
	needVM(t)
	m := installer(t, qemu.UEFI, "{disk: {transport: nvme}}", func(c *machine.Config) { c.Bus, c.Sector, c.Prefer = qemu.NVMe, 4096, true })
	start(t, m)
	restarted(t, m)
	if err := m.Unseed(); err != nil {
		t.Fatal(err)
	}
	start(t, m)
	if _, err := m.Booted(within(t, bootLimit)); err != nil {
		t.Fatal(err)
	}
}

// A disk with data is refused and stays as it is; the same machine installs once user-data names it and says wipe.
func TestScenarioInstallRefuses(t *testing.T) {
	needVM(t)
	precious := filepath.Join(t.TempDir(), "precious.raw")
	if out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-L", "precious", precious, "8g").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	dir := ""
	m := installer(t, qemu.BIOS, "{disk: /dev/vda}", func(c *machine.Config) { c.Image, dir = precious, c.Dir })
	start(t, m)
	mark := m.Mark()
	says(t, m, mark, `keelson: user-data: cidata volume /dev/vdb: user-data: line \d+: install\.disk: /dev/vda \(21\.5 GB, virtio, serial system\) `+
		`holds an ext file system with the label "precious" and is not touched`)
	says(t, m, mark, `keelson: waiting for corrected user-data`)
	if out, err := exec.Command("qemu-img", "compare", "-U", "-f", "qcow2", "-F", "raw", filepath.Join(dir, "disk.qcow2"), precious).CombinedOutput(); err != nil {
		t.Errorf("the disk was written to: %v\n%s", err, out)
	}
	mark = m.Console().Mark()
	correct(t, m, string(installData(t, "{disk: {serial: system}, wipe: true, then: poweroff}")))
	says(t, m, mark, `keelson: install: plan: the disk holds an ext file system with the label "precious", which is lost`)
	cutOnce(t, m)
	says(t, m, m.Mark(), `keelson: install: done in `)
	if reason, err := m.Ended(within(t, shutdownLimit)); err != nil || reason != "guest-shutdown" {
		t.Fatalf("after the installation the machine ended by %q, %v, want guest-shutdown", reason, err)
	}
	start(t, m)
	if _, err := m.Booted(within(t, bootLimit)); err != nil {
		t.Fatal(err)
	}
}

// installSteps is how many an installation has.
const installSteps = 12

// installCuts are those at random moments: 20 where nobody asks for another number.
func installCuts() int { return 10 * *flagCuts }

// Power cuts at each step of an installation, and at random moments of it, all on one disk: every time the installer begins
// again, and the last time it ends. The medium is a disk here and the kernel is started directly: that saves the most of the
// time.
func TestScenarioInstallPowerCut(t *testing.T) {
	needVM(t)
	if *flagArch != "amd64" {
		t.Skip("arm64 has other steps")
	}
	m := installer(t, qemu.Direct, "{disk: {serial: system}}", func(c *machine.Config) {
		c.Insert, c.Boot, c.Parameters = qemu.Virtio, filepath.Join(the.build, *flagArch+"-metal"), []string{"keelson.live=1"}
	})
	const plan = `keelson: install: plan: Keelson `
	cut := func(of string) {
		if err := m.PowerCut(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		t.Logf("power cut %s", of)
	}
	var span time.Duration // from the plan to the last step
	for step := range installSteps {
		start(t, m)
		begin := says(t, m, m.Mark(), plan)
		line := says(t, m, m.Mark(), fmt.Sprintf(`keelson: install: %d of %d: `, step+1, installSteps))
		if step > 1 { // the cut at the first may be before the mark
			begun(t, m)
		}
		span = line.At.Sub(begin.At)
		cut(line.Text)
	}
	finished := 0
	for n := range installCuts() {
		// A cut at the very end leaves the finished system, and it takes other user-data to begin once more.
		if start(t, m); strings.Contains(says(t, m, m.Mark(), plan+`|has what this user-data installs`).Text, "has what") {
			finished++
			cut("of a machine that has nothing to do")
			reseed(t, m, fmt.Sprintf("{disk: {serial: system}, wipe: true} # %d", n))
			start(t, m)
			says(t, m, m.Mark(), plan)
		}
		cutUnlessEnded(t, m, time.Duration(the.random.Int64N(int64(span))))
	}
	t.Logf("%d of %d cuts at random moments left the finished system", finished, installCuts())
	reseed(t, m, "{disk: {serial: system}, wipe: true} # the last")
	start(t, m)
	says(t, m, m.Mark(), plan)
	restarted(t, m)
	m.Refit(4096, qemu.BIOS)
	start(t, m)
	if _, err := m.Booted(within(t, bootLimit)); err != nil {
		t.Fatal(err)
	}
	if err := m.Shutdown(within(t, shutdownLimit)); err != nil {
		t.Fatal(err)
	}
	again(t, m)
}

// again starts the medium of a machine whose disk has a system that has run. By the same user-data it is left alone; other
// user-data that says wipe has it installed anew, although the live machine has taken its state for its own.
func again(t *testing.T, m *machine.Machine) {
	t.Helper()
	m.Refit(4096, qemu.Direct)
	start(t, m)
	says(t, m, m.Mark(), `keelson: state: /dev/vda5 `)
	says(t, m, m.Mark(), `keelson: install: /dev/vda .* has what this user-data installs, and is not touched`)
	if err := m.Shutdown(within(t, shutdownLimit)); err != nil {
		t.Fatal(err)
	}
	reseed(t, m, "{disk: {by-id: virtio-system}, wipe: true}")
	start(t, m)
	says(t, m, m.Mark(), `keelson: install: plan: the disk holds a Keelson system and its state, which is lost`)
	restarted(t, m)
}

// reseed gives a machine that is off another section install.
func reseed(t *testing.T, m *machine.Machine, section string) {
	t.Helper()
	if err := m.Reseed(cidata.Volume{UserData: installData(t, section), MetaData: []byte("instance-id: i-1\n")}); err != nil {
		t.Fatal(err)
	}
}

// cutOnce takes the power away while the root is written: the firmware then passes the disk over, although it comes first,
// and the medium begins again.
func cutOnce(t *testing.T, m *machine.Machine) {
	t.Helper()
	says(t, m, m.Mark(), `keelson: install: \d+ of \d+: write KEELSON-ROOT-A`)
	if err := m.PowerCut(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	start(t, m)
	begun(t, m)
}

// begun waits for what the plan says of a disk that a cut has left.
func begun(t *testing.T, m *machine.Machine) {
	t.Helper()
	says(t, m, m.Mark(), `keelson: install: plan: the disk holds an installation that was not finished: it begins anew`)
}
