package ext4

import (
	"context"
	"fmt"
	"os"
	"strings"

	"keelson/init/layout"
)

// Runner starts a program and waits for it. A program that ran has a nil error
// and its exit code.
type Runner interface {
	Run(ctx context.Context, argv ...string) (output string, code int, err error)
}

// Result says what Ensure did.
type Result struct {
	Made     bool // a new file system
	Repaired bool // e2fsck corrected errors
	Bytes    uint64
}

// Exit codes of e2fsck(8).
const (
	fsckCorrected = 1
	fsckReboot    = 2 // only matters for a mounted file system
)

// Ensure leaves a whole ext4 on the partition or says why not. It formats only
// where there is nothing, or where an own file system was never mounted and is
// not whole (the power went while mke2fs ran).
func Ensure(ctx context.Context, run Runner, device string) (Result, error) {
	f, err := os.Open(device)
	if err != nil {
		return Result{}, fmt.Errorf("open %s: %w", device, err)
	}
	found, err := Look(f)
	f.Close()
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", device, err)
	}
	switch found.Kind {
	case Foreign:
		return Result{}, fmt.Errorf("%s holds %s and is not touched: save what you need of it, delete the partition %s and boot again",
			device, found.What, layout.LabelState)
	case Empty:
		return Result{Made: true}, Make(ctx, run, device)
	}
	repaired, err := Check(ctx, run, device)
	if err != nil && found.Kind == Fresh {
		return Result{Made: true}, Make(ctx, run, device)
	}
	return Result{Repaired: repaired, Bytes: found.Bytes}, err
}

// Make formats. The features are named, so that a newer mke2fs does not decide
// what an older kernel must read; lazy tables leave the zeroing of inode tables
// to the kernel's background thread.
func Make(ctx context.Context, run Runner, device string) error {
	return Format(ctx, run, device, layout.StateFSLabel, "-J", "size=64")
}

// Format is Make with a label of the caller's, and more arguments of mke2fs.
func Format(ctx context.Context, run Runner, device, label string, more ...string) error {
	return mke2fs(ctx, run, device, append(arguments(label, ""), append(more, device)...))
}

// MakeIn makes the state's file system in size bytes of a disk from start on, whether they are a partition yet or not, with
// what is in a folder, and has e2fsck look at it.
func MakeIn(ctx context.Context, run Runner, disk string, start, size int64, folder string) error {
	argv := append(arguments(layout.StateFSLabel, fmt.Sprintf(",offset=%d", start)), "-J", "size=64", "-d", folder, disk, fmt.Sprintf("%dk", size>>10))
	if err := mke2fs(ctx, run, disk, argv); err != nil {
		return err
	}
	out, code, err := run.Run(ctx, layout.E2fsck, "-f", "-n", fmt.Sprintf("%s?offset=%d", disk, start))
	if err != nil {
		return fmt.Errorf("check the file system on %s: %w", disk, err)
	}
	if code != 0 {
		return fmt.Errorf("check the file system on %s: e2fsck ended with %d: %s", disk, code, lastLine(out))
	}
	return nil
}

func arguments(label, extended string) []string {
	return []string{layout.Mke2fs, "-q", "-F", "-t", "ext4", "-L", label, "-m", "1", "-b", "4096",
		"-O", "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum",
		"-E", "lazy_itable_init=1,nodiscard" + extended}
}

func mke2fs(ctx context.Context, run Runner, device string, argv []string) error {
	out, code, err := run.Run(ctx, argv...)
	if err != nil {
		return fmt.Errorf("make the file system on %s: %w", device, err)
	}
	if code != 0 {
		return fmt.Errorf("make the file system on %s: mke2fs ended with %d: %s", device, code, lastLine(out))
	}
	return nil
}

// Check repairs what e2fsck repairs by itself.
func Check(ctx context.Context, run Runner, device string) (repaired bool, err error) {
	out, code, err := run.Run(ctx, layout.E2fsck, "-p", device)
	switch {
	case err != nil:
		return false, fmt.Errorf("check %s: %w", device, err)
	case code&^(fsckCorrected|fsckReboot) != 0:
		return false, fmt.Errorf("%s is damaged and e2fsck does not repair it by itself (exit code %d: %s): "+
			"nothing was changed; repair it with e2fsck from another system, or restore the machine", device, code, lastLine(out))
	}
	return code != 0, nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
