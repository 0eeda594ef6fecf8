package mount

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ParsePoints lists the mount points of a mountinfo file (proc(5)), in the
// order they were mounted.
func ParsePoints(mountinfo string) ([]string, error) {
	var out []string
	for n, line := range strings.Split(strings.TrimSuffix(mountinfo, "\n"), "\n") {
		if line == "" {
			continue
		}
		f := strings.Split(line, " ")
		if len(f) < 6 {
			return nil, fmt.Errorf("mountinfo: line %d: %d fields, want 6 or more", n+1, len(f))
		}
		out = append(out, unescape(f[4]))
	}
	return out, nil
}

// unescape undoes the octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// UnmountState takes /var and everything below it down, last mounted first;
// what is busy is made read-only, so that its journal is closed.
func UnmountState(state string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	points, err := ParsePoints(string(b))
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(points) {
		if p != state && p != "/" && !slices.Contains([]string{"/dev", "/proc", "/sys"}, topOf(p)) {
			unix.Unmount(p, unix.UMOUNT_NOFOLLOW) // what stays busy shows in the state's own result
		}
	}
	if !slices.Contains(points, state) {
		return nil
	}
	busy := unix.Unmount(state, unix.UMOUNT_NOFOLLOW)
	if busy == nil {
		return nil
	}
	if err := unix.Mount("", state, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("unmount %s: %w", state, errors.Join(busy, err))
	}
	return nil
}

// topOf is the first folder of an absolute path.
func topOf(p string) string {
	if p == "" {
		return p
	}
	if i := strings.IndexByte(p[1:], '/'); i >= 0 {
		return p[:i+1]
	}
	return p
}
