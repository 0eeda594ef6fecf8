package scenario

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/init/layout"
	"keelson/testvm/machine"
	"keelson/testvm/qemu"
)

// refusal is what firmware, or systemd-boot in its name, says of a program
// whose signature is absent, by a stranger or broken. (EFI_ACCESS_DENIED and
// EFI_SECURITY_VIOLATION.)
const refusal = `(?i)(access denied|security violation|verification failed)`

// setupLimit is for a boot of the firmware, the loader's countdown and a reset.
const setupLimit = 6 * time.Minute

// Secure Boot with keys of our own: a machine in setup mode enrols them from
// the ESP; from then on it boots what was signed and refuses what was not, and
// what was changed by one bit.
func TestSecureBoot(t *testing.T) {
	needVM(t)
	dir := filepath.Join(the.build, "vm", "secureboot")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	keys, signed := filepath.Join(dir, "keys"), filepath.Join(dir, "signed.raw")
	imagebuild(t, "keys", keys)
	// Programs that were compiled need not be linked again.
	parts := filepath.Join(dir, "parts")
	if err := os.MkdirAll(parts, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", filepath.Join(the.build, "amd64", "bin"), parts).CombinedOutput(); err != nil {
		t.Fatalf("copy programs: %v\n%s", err, out)
	}
	imagebuild(t, "build", "--artefacts", "raw", "--out", signed, "--dir", parts, "--enroll", keys,
		"--sign-key", filepath.Join(keys, "db.key"), "--sign-cert", filepath.Join(keys, "db.crt"))

	vars := filepath.Join(dir, "enrolled.fd")
	t.Run("SignedBoots", func(t *testing.T) {
		m := newSecure(t, signed, "")
		start(t, m)
		if _, err := m.Expect(within(t, setupLimit), `(?i)enrolling`); err != nil {
			t.Fatal(err)
		}
		// The loader writes the variables and resets; the next start is under
		// Secure Boot.
		if _, err := m.Expect(within(t, setupLimit+bootLimit), `keelson: boot: complete in`); err != nil {
			t.Fatal(err)
		}
		if err := m.PowerCut(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		if err := qemu.CopyFile(m.Variables(), vars); err != nil {
			t.Fatal(err)
		}
		// Once more: now nothing is enrolled any more.
		start(t, m)
		if _, err := m.Expect(within(t, bootLimit), `keelson: boot: complete in`); err != nil {
			t.Fatal(err)
		}
	})
	if t.Failed() {
		return
	}
	t.Run("UnsignedIsRefused", func(t *testing.T) { refuses(t, the.image, vars) })
	t.Run("TamperedIsRefused", func(t *testing.T) {
		tampered := filepath.Join(dir, "tampered.raw")
		if out, err := exec.Command("cp", "--sparse=always", signed, tampered).CombinedOutput(); err != nil {
			t.Fatalf("copy image: %v\n%s", err, out)
		}
		changeUKI(t, tampered, filepath.Join(parts, "keelson.efi"))
		refuses(t, tampered, vars)
	})
}

// imagebuild runs the builder in the checkout.
func imagebuild(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(within(t, 20*time.Minute), "go", append([]string{"run", "./imagebuild"}, args...)...)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("imagebuild %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func newSecure(t *testing.T, image, vars string) *machine.Machine {
	t.Helper()
	return newMachine(t, qemu.UEFI, func(c *machine.Config) {
		c.Image, c.Secure, c.Vars, c.Reboots = image, true, vars, true
	})
}

// refuses starts a machine on which Secure Boot is on and waits for the
// refusal; a kernel that starts after all ends the wait.
func refuses(t *testing.T, image, vars string) {
	t.Helper()
	m := newSecure(t, image, vars)
	start(t, m)
	line, err := m.Expect(within(t, setupLimit), refusal+`|keelson: `)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(line.Text, "keelson: ") {
		t.Fatalf("it boots: %s", line.Text)
	}
	t.Logf("refused: %s", line.Text)
	if err := m.PowerCut(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
}

// changeUKI changes one bit in the middle of the UKI inside of an image. The file
// lies in one piece on a volume that was just made.
func changeUKI(t *testing.T, image, ukiFile string) {
	t.Helper()
	program, err := os.ReadFile(ukiFile)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	volume := make([]byte, layout.ESPSize)
	begin := int64(layout.Align + layout.BIOSSize)
	if _, err := f.ReadAt(volume, begin); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(volume, program)
	if at < 0 {
		t.Fatal("the UKI is not in the image in one piece")
	}
	at += len(program) / 2
	if _, err := f.WriteAt([]byte{volume[at] ^ 1}, begin+int64(at)); err != nil {
		t.Fatal(err)
	}
}
