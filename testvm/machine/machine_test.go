package machine

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	diskfs "github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"keelson/init/layout"
	"keelson/testvm/cidata"
	"keelson/testvm/console"
	"keelson/testvm/qemu"
)

// talker is a disk whose boot sector writes text to the serial port and then
// does what the last instructions say (8086, loaded at 0x7c00).
func talker(t *testing.T, text string, last ...byte) string {
	t.Helper()
	code := []byte{
		0x31, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov ds, ax
		0xfc,             // cld
		0xbe, 0x80, 0x7c, // mov si, 0x7c80
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xac,       // next: lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x03, // jz end
		0xee,       // out dx, al
		0xeb, 0xf8, // jmp next
	} // end:
	sector := make([]byte, 1<<20)
	copy(sector, append(code, last...))
	if n := copy(sector[0x80:509], text); n < len(text) {
		t.Fatal("the text does not fit a boot sector")
	}
	sector[510], sector[511] = 0x55, 0xaa
	path := filepath.Join(t.TempDir(), "talker.raw")
	if err := os.WriteFile(path, sector, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Ends of a talker.
func rest() []byte  { return []byte{0xf4, 0xeb, 0xfd} }             // hlt; again
func reset() []byte { return []byte{0xb0, 0xfe, 0xe6, 0x64, 0xf4} } // pulse the reset line; hlt

func newMachine(t *testing.T, image string) (*Machine, context.Context) {
	t.Helper()
	for _, program := range []string{qemu.Binary("amd64"), "qemu-img"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: %s is not installed (packages qemu-system-x86, qemu-utils)", program)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	m, err := New(ctx, Config{
		Dir: filepath.Join(t.TempDir(), "vm"), Image: image, Accel: qemu.TCG, Firmware: qemu.BIOS,
		Memory: 64, CPUs: 1, DiskSize: 8 << 20, Seed: cidata.Volume{UserData: []byte("#cloud-config\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m, ctx
}

func TestBootsPowerCutsAndReport(t *testing.T) {
	m, ctx := newMachine(t, talker(t, "\r\nkeelson: boot: complete in 1.500 s\r\n", rest()...))
	for range 2 {
		if err := m.Start(ctx); err != nil {
			t.Fatal(err)
		}
		step, err := m.Booted(ctx)
		if err != nil || step.Since != 1500*time.Millisecond {
			t.Fatalf("Booted: got %+v, %v, want 1.5 s", step, err)
		}
		if err := m.PowerCut(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Booted(ctx); !errors.Is(err, console.ErrEnded) && err != nil {
		t.Errorf("a machine that is off: got %v", err)
	}
	if err := m.PowerCut(ctx); err == nil {
		t.Error("power cut of a machine that is off: got no error")
	}
	if err := m.Shutdown(ctx); err == nil {
		t.Error("shutdown of a machine that is off: got no error")
	}
	report := filepath.Join(t.TempDir(), "report")
	if err := m.Report(ctx, report, "it did not do as it should", false); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"failure.txt": "it did not do as it should", "console.log": "power cut ends boot 2", "command.sh": "# boot 2", "user-data": "#cloud-config",
	} {
		data, err := os.ReadFile(filepath.Join(report, name))
		if err != nil || !strings.Contains(string(data), want) {
			t.Errorf("report %s: got %q, %v, want %q in it", name, data, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(report, "disk.qcow2")); err == nil {
		t.Error("report: the disk was kept without being asked for")
	}
	if err := m.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(m.config.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("removed machine: got %v, want its folder to be gone", err)
	}
}

func TestBootThatEndsEarly(t *testing.T) {
	for _, c := range []struct {
		name, text, want string
		last             []byte
	}{
		{"it waits", "\r\nkeelson: waiting for corrected user-data\r\n", "came to its end with", rest()},
		{"it resets", "\r\nkeelson: boot: clock: ok (1 ms)\r\n", "the machine ended", reset()},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, ctx := newMachine(t, talker(t, c.text, c.last...))
			if err := m.Start(ctx); err != nil {
				t.Fatal(err)
			}
			_, err := m.Booted(ctx)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "  | keelson: ") {
				t.Errorf("error: got %v, want %q and the last lines", err, c.want)
			}
		})
	}
}

func TestEndedSaysHow(t *testing.T) {
	m, ctx := newMachine(t, talker(t, "bye\r\n", reset()...))
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if reason, err := m.Ended(ctx); err != nil || reason != "guest-reset" {
			t.Errorf("Ended: got %q, %v, want guest-reset", reason, err)
		}
	}
}

// A guest that does not know of a power button is an error in time, and is
// still there to be looked at.
func TestShutdownKeepsItsDeadline(t *testing.T) {
	m, ctx := newMachine(t, talker(t, "deaf\r\n", rest()...))
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Expect(ctx, "deaf"); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := m.Shutdown(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "| deaf") {
		t.Errorf("Shutdown: got %v, want the deadline and the last lines", err)
	}
	if !m.running() {
		t.Error("the machine is gone")
	}
	if err := m.Announce(ctx); err != nil {
		t.Errorf("Announce: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	m, ctx := newMachine(t, talker(t, "x", rest()...))
	if _, err := New(ctx, m.config); err == nil || !strings.Contains(err.Error(), "in use by another machine") {
		t.Errorf("a second machine in the folder: got %v", err)
	}
	c := m.config
	c.Dir, c.Image = filepath.Join(t.TempDir(), "vm"), "/no/such/image.raw"
	if _, err := New(ctx, c); err == nil || !strings.Contains(err.Error(), "make image") {
		t.Errorf("no image: got %v, want an error that says what to do", err)
	}
	c = m.config
	c.Dir, c.Firmware, c.Boot = filepath.Join(t.TempDir(), "vm"), qemu.Direct, t.TempDir()
	if _, err := New(ctx, c); err == nil || !strings.Contains(err.Error(), "vmlinuz") {
		t.Errorf("no kernel: got %v, want an error that names it", err)
	}
}

// A build may put another image in the place of the one a machine runs from.
func TestImageIsPinned(t *testing.T) {
	image := talker(t, "\r\nfirst image\r\n", rest()...)
	m, ctx := newMachine(t, image)
	if err := os.Rename(talker(t, "\r\nsecond image\r\n", rest()...), image); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if line, err := m.Expect(ctx, "(first|second) image"); err != nil || line.Text != "first image" {
		t.Errorf("console: got %q, %v, want the image the machine was made from", line.Text, err)
	}
}

// QEMU has the seed open: another one must go into the same file.
func TestReseedKeepsTheFile(t *testing.T) {
	m, _ := newMachine(t, talker(t, "x", rest()...))
	before, err := os.Stat(m.path("cidata.img"))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Reseed(cidata.Volume{UserData: []byte("#cloud-config\nhostname: other\n")}); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(m.path("cidata.img"))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("seed: got another file (%v), want the same one", err)
	}
	if data, err := os.ReadFile(m.path("cidata.img")); err != nil || !strings.Contains(string(data), "hostname: other") {
		t.Errorf("seed: the new document is not in it (%v)", err)
	}
}

func TestPartitionOffset(t *testing.T) {
	raw := filepath.Join(t.TempDir(), "disk.raw")
	d, err := diskfs.Create(raw, 32<<20, diskfs.SectorSize512)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	table := &gpt.Table{LogicalSectorSize: 512, PhysicalSectorSize: 512, ProtectiveMBR: true, Partitions: []*gpt.Partition{
		{Index: 1, Start: 2048, End: 4095, Type: gpt.LinuxFilesystem, Name: layout.LabelRootA},
		{Index: 5, Start: 8192, End: 16383, Type: gpt.LinuxFilesystem, Name: layout.LabelState},
	}}
	if err := d.Partition(table); err != nil {
		t.Fatal(err)
	}
	for label, want := range map[string]int64{layout.LabelRootA: 2048 * 512, layout.LabelState: 8192 * 512} {
		if got, err := PartitionOffset(raw, label); err != nil || got != want {
			t.Errorf("PartitionOffset(%s): got %d, %v, want %d", label, got, err, want)
		}
	}
	if _, err := PartitionOffset(raw, layout.LabelESP); err == nil {
		t.Error("a partition that is not there: got no error")
	}
}
