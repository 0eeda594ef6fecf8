package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// HelperSysctl holds the program that the kernel starts to ask for a module.
const HelperSysctl = "/proc/sys/kernel/modprobe"

// ParseRequest reads the arguments that the kernel gives its module helper
// (kernel/module/kmod.c, call_modprobe: PROGRAM -q -- NAME).
func ParseRequest(args []string) (name string, ok bool) {
	if len(args) != 4 || args[1] != "-q" || args[2] != "--" || args[3] == "" {
		return "", false
	}
	return args[3], true
}

// ModuleDir is the module directory of the running kernel below base.
func ModuleDir(base string) (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("read the kernel's release: %w", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	if release == "" || strings.ContainsRune(release, '/') {
		return "", fmt.Errorf("kernel release %q: not a directory name", release)
	}
	return filepath.Join(base, release), nil
}

// EnsureHelper makes program the kernel's module helper.
func EnsureHelper(program string) error {
	if err := os.WriteFile(HelperSysctl, []byte(program), 0); err != nil {
		return fmt.Errorf("set the kernel's module helper: %w", err)
	}
	return nil
}
