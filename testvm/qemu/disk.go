package qemu

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// CreateOverlay makes a qcow2 disk of size bytes at path whose content is that
// of the image base until it is written to; format is what QEMU calls the
// image's. The image itself is never written, so that several machines may
// start from one.
func CreateOverlay(ctx context.Context, base, format, path string, size int64) error {
	abs, err := filepath.Abs(base) // a relative name would be looked up beside the overlay
	if err != nil {
		return fmt.Errorf("overlay disk %s: %w", path, err)
	}
	if _, err := os.Stat(abs); err != nil {
		return fmt.Errorf("overlay disk %s: %w: build the image first (make image)", path, err)
	}
	cmd := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", format, "-b", abs, path, fmt.Sprint(size))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("overlay disk %s: qemu-img: %w: %s", path, err, out)
	}
	return nil
}

// CreateDisk makes an empty qcow2 disk.
func CreateDisk(ctx context.Context, path string, size int64) error {
	if out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", path, fmt.Sprint(size)).CombinedOutput(); err != nil {
		return fmt.Errorf("disk %s: qemu-img: %w: %s", path, err, out)
	}
	return nil
}

// Flatten writes the content of a disk as a raw file, holes kept.
func Flatten(ctx context.Context, disk, raw string) error {
	cmd := exec.CommandContext(ctx, "qemu-img", "convert", "-q", "-U", "-O", "raw", disk, raw)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("flatten disk %s: qemu-img: %w: %s", disk, err, out)
	}
	return nil
}

// Compare tells by its error that a qcow2 disk does not hold what the image does,
// whose format is what QEMU calls it. Zeros behind the image's end are as good
// as nothing, so a disk may be larger.
func Compare(ctx context.Context, image, format, disk string) error {
	out, err := exec.CommandContext(ctx, "qemu-img", "compare", "-f", format, "-F", "qcow2", image, disk).CombinedOutput()
	if err != nil {
		return fmt.Errorf("compare disk %s with %s: qemu-img: %w: %s", disk, image, err, bytes.TrimSpace(out))
	}
	return nil
}

// CopyFile copies a small file, such as the firmware's variables.
func CopyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("copy to %s: %w", to, err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}
