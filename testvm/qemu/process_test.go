package qemu

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const binary = "qemu-system-x86_64"

func needQEMU(t *testing.T) context.Context {
	t.Helper()
	if _, err := exec.LookPath(binary); err != nil {
		t.Skipf("SKIPPED: %s is not installed (package qemu-system-x86)", binary)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// boot starts a machine whose disk is one boot sector: the program is 8086
// code, loaded at 0x7c00 (PC BIOS convention).
func boot(t *testing.T, ctx context.Context, code []byte) *Process {
	t.Helper()
	sector := make([]byte, 1<<20)
	copy(sector, code)
	sector[510], sector[511] = 0x55, 0xaa
	disk := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(disk, sector, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Start(ctx, Config{
		Binary: binary, Accel: TCG, Memory: 32, Firmware: BIOS, NoReboot: true,
		Disks: []Disk{{Path: disk, Format: "raw"}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill(); <-p.Done() })
	return p
}

// hello writes "K\n" to the first serial port (0x3f8), and then does what the
// last bytes say.
func hello(last ...byte) []byte {
	return append([]byte{
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xb0, 'K', 0xee, // mov al, 'K'; out dx, al
		0xb0, '\n', 0xee, // mov al, '\n'; out dx, al
	}, last...)
}

func TestGuestSpeaksAndIsKilled(t *testing.T) {
	ctx := needQEMU(t)
	p := boot(t, ctx, hello(0xf4, 0xeb, 0xfd)) // hlt; jmp back
	seen := make([]byte, 2)
	if _, err := io.ReadFull(p.Serial(), seen); err != nil || string(seen) != "K\n" {
		t.Fatalf("serial: got %q, %v, want K", seen, err)
	}
	if used, err := p.CPU(); err != nil || used <= 0 || used > time.Minute {
		t.Errorf("processor time: got %s, %v, want some", used, err)
	}
	p.Kill()
	if err := p.Wait(ctx); err != nil {
		t.Errorf("a power cut is not an error: got %v", err)
	}
	if used, err := p.CPU(); err == nil {
		t.Errorf("processor time of a qemu that is gone: got %s", used)
	}
	if rest, err := io.ReadAll(p.Serial()); err != nil || len(rest) != 0 {
		t.Errorf("serial after the end: got %q, %v, want its end", rest, err)
	}
}

func TestGuestResetsItself(t *testing.T) {
	ctx := needQEMU(t)
	p := boot(t, ctx, hello(0xb0, 0xfe, 0xe6, 0x64, 0xf4)) // mov al, 0xfe; out 0x64, al (pulse the reset line); hlt
	out, err := io.ReadAll(p.Serial())
	if err != nil || !bytes.HasSuffix(out, []byte("K\n")) {
		t.Errorf("serial: got %q, %v, want K at its end", out, err)
	}
	if err := p.Wait(ctx); err != nil {
		t.Error(err)
	}
	if got, want := p.QMP().ShutdownReason(), "guest-reset"; got != want {
		t.Errorf("reason: got %q, want %q", got, want)
	}
}

func TestQuit(t *testing.T) {
	ctx := needQEMU(t)
	p := boot(t, ctx, hello(0xf4, 0xeb, 0xfd))
	if err := p.QMP().Powerdown(ctx); err != nil { // nobody listens to the button
		t.Error(err)
	}
	if err := p.QMP().Quit(ctx); err != nil {
		t.Error(err)
	}
	if err := p.Wait(ctx); err != nil {
		t.Error(err)
	}
}

func TestStartSaysWhatQEMUComplainedOf(t *testing.T) {
	ctx := needQEMU(t)
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	_, err = Start(ctx, Config{Binary: binary, Accel: TCG, Firmware: Direct, Kernel: "/no/such/kernel"}, stderr)
	if err == nil || !strings.Contains(err.Error(), "/no/such/kernel") {
		t.Errorf("error: got %v, want one that names the missing kernel", err)
	}
}

func TestStartWithoutQEMU(t *testing.T) {
	_, err := Start(context.Background(), Config{Binary: "/no/such/qemu", Accel: TCG, Firmware: BIOS}, nil)
	if err == nil || !strings.Contains(err.Error(), "start /no/such/qemu") {
		t.Errorf("error: got %v, want one that names the program", err)
	}
}

func TestOverlay(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("SKIPPED: qemu-img is not installed (package qemu-utils)")
	}
	ctx, dir := context.Background(), t.TempDir()
	base, overlay, flat := filepath.Join(dir, "base.raw"), filepath.Join(dir, "disk.qcow2"), filepath.Join(dir, "flat.raw")
	content := bytes.Repeat([]byte("keelson "), 1<<17)
	if err := os.WriteFile(base, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CreateOverlay(ctx, base, "raw", overlay, 4<<20); err != nil {
		t.Fatal(err)
	}
	if err := Compare(ctx, base, "raw", overlay); err != nil {
		t.Errorf("compare an overlay that nobody wrote to: %v", err)
	}
	if err := Flatten(ctx, overlay, flat); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(flat)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 4<<20 || !bytes.Equal(got[:len(content)], content) {
		t.Errorf("overlay: got %d bytes, want the image's and then zeros up to 4 MiB", len(got))
	}
	if out, err := exec.Command("qemu-io", "-f", "qcow2", "-c", "write -P 1 4096 512", overlay).CombinedOutput(); err != nil {
		t.Fatalf("qemu-io: %v: %s", err, out)
	}
	if err := Compare(ctx, base, "raw", overlay); err == nil || !strings.Contains(err.Error(), "mismatch at offset 4096") {
		t.Errorf("compare an overlay with one sector written: got %v, want an error that says where", err)
	}
	if err := CreateOverlay(ctx, filepath.Join(dir, "none.raw"), "raw", overlay, 4<<20); err == nil || !strings.Contains(err.Error(), "make image") {
		t.Errorf("overlay of nothing: got %v, want an error that says what to do", err)
	}
}
