package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sort"
	"strings"
)

// need is a Debian package that a command needs, and how to see that it is
// there: a program in PATH, or a file.
type need struct {
	pkg     string
	program string
	file    string
	why     string
}

// needs says what each purpose needs from Debian besides Go, for images of an
// architecture. What runc is linked with, the C library too, comes by a package list.
func needs(purpose, arch string) ([]need, error) {
	building := []need{
		{pkg: "apt", program: "apt-get", why: "fetches and checks Debian packages"},
		{pkg: "gcc", program: "gcc", why: "compiles the C part of runc"},
		{pkg: "pkg-config", program: "pkg-config", why: "finds libseccomp"},
		{pkg: "ca-certificates", file: "/etc/ssl/certs/ca-certificates.crt", why: "checks who serves Go modules"},
	}
	if foreign(arch) {
		m, err := machineOf(arch)
		if err != nil {
			return nil, fmt.Errorf("deps: %w", err)
		}
		building = []need{
			building[0],
			{pkg: m.gcc, program: m.triplet + "-gcc", why: "compiles the C part of runc for " + arch},
			{pkg: "pkg-config", program: "pkg-config", why: "finds libseccomp"},
			{pkg: "ca-certificates", file: "/etc/ssl/certs/ca-certificates.crt", why: "checks who serves Go modules"},
		}
	}
	running := []need{
		{pkg: "qemu-system-x86", program: "qemu-system-x86_64", why: "runs the machine"},
		{pkg: "qemu-utils", program: "qemu-img", why: "makes the machine's disk"},
		{pkg: "zstd", program: "zstd", why: "measures the image as it is sent"},
		{pkg: "ovmf", file: "/usr/share/OVMF/OVMF_CODE_4M.fd", why: "UEFI firmware of the machine"},
	}
	if arch == "arm64" {
		running[0] = need{pkg: "qemu-system-arm", program: "qemu-system-aarch64", why: "runs the machine"}
		running[len(running)-1] = need{pkg: "qemu-efi-aarch64", file: "/usr/share/AAVMF/AAVMF_CODE.fd", why: "UEFI firmware of the machine"}
	}
	switch purpose {
	case "build":
		return building, nil
	case "run":
		return running, nil
	case "conformance":
		return append(building, need{pkg: "debootstrap", program: "debootstrap", why: "makes what the images of Kubernetes' tests stand on"}), nil
	case "check":
		other, err := machineOf(map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH])
		if err != nil {
			return nil, fmt.Errorf("deps: this machine: %w", err)
		}
		return append(building,
			need{pkg: "erofs-utils", program: "fsck.erofs", why: "checks EROFS images"},
			need{pkg: "cryptsetup-bin", program: "veritysetup", why: "checks dm-verity trees"},
			need{pkg: "dosfstools", program: "fsck.fat", why: "checks FAT volumes"},
			need{pkg: "mtools", program: "mcopy", why: "reads FAT volumes"},
			need{pkg: "gdisk", program: "sgdisk", why: "checks partition tables"},
			need{pkg: "xorriso", program: "xorriso", why: "reads NoCloud volumes"},
			need{pkg: "cpio", program: "cpio", why: "reads initramfs archives"},
			need{pkg: "kmod", program: "depmod", why: "checks module indexes"},
			need{pkg: "e2fsprogs", program: "mke2fs", why: "makes file systems to test with"},
			need{pkg: "sbsigntool", program: "sbverify", why: "checks Secure Boot signatures"},
			need{pkg: "osslsigncode", program: "osslsigncode", why: "checks Secure Boot signatures"},
			need{pkg: "binutils", program: "objdump", why: "reads EFI programs"},
			need{pkg: "qemu-utils", program: "qemu-img", why: "checks disk image formats"},
			need{pkg: other.gcc, program: other.triplet + "-gcc", why: "shows that programs in C can be built for another architecture"},
			need{pkg: other.libc, file: "/usr/" + other.triplet + "/lib/libc.a", why: "links them"},
			need{pkg: "gcc", program: "gcc", why: "compiles programs in C to test with"},
			need{pkg: "libc6-dev", file: "/usr/include/stdlib.h", why: "links them"},
			need{pkg: "zstd", program: "zstd", why: "reads compressed images"},
			need{pkg: "iptables", program: "iptables-save", why: "checks the rules of network policies"},
			need{pkg: "ipset", program: "ipset", why: "checks their sets"},
		), nil
	}
	return nil, fmt.Errorf("deps: purpose %q: want build, run, check or conformance", purpose)
}

// here says whether the need is met; sbin folders are looked through as well,
// which are not in everybody's PATH.
func (n need) here() bool {
	if n.file != "" {
		_, err := os.Stat(n.file)
		return err == nil
	}
	if _, err := exec.LookPath(n.program); err == nil {
		return true
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if _, err := os.Stat(dir + n.program); err == nil {
			return true
		}
	}
	return false
}

// deps checks for what the machine must have; with install, and as root, it
// installs what is missing. Otherwise it names the one command to run.
func deps(ctx context.Context, purpose, arch string, install bool, progress io.Writer) error {
	all, err := needs(purpose, arch)
	if err != nil {
		return err
	}
	var missing []string
	for _, n := range all {
		if !n.here() {
			missing = append(missing, n.pkg)
			fmt.Fprintf(progress, "  %s is missing: it %s\n", n.pkg, n.why)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	sort.Strings(missing)
	command := "apt-get install -y --no-install-recommends " + strings.Join(missing, " ")
	if !install || os.Geteuid() != 0 {
		return fmt.Errorf("packages are missing; run: sudo %s", command)
	}
	for _, args := range [][]string{{"update", "-q"}, strings.Fields(command)[1:]} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = progress, progress
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("run apt-get %s: %w; by hand: sudo %s", args[0], err, command)
		}
	}
	return nil
}
