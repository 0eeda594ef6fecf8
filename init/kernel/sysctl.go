package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Setting is one sysctl. Optional ones ("-key = value", sysctl.d(5)) may be
// refused by the kernel.
type Setting struct {
	Key, Value string
	Optional   bool
}

// ParseSysctls reads a sysctl.d(5) file.
func ParseSysctls(name string, data []byte) ([]Setting, error) {
	var out []Setting
	for n, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		rest, optional := strings.CutPrefix(line, "-")
		key, value, ok := strings.Cut(rest, "=")
		s := Setting{strings.TrimSpace(key), strings.TrimSpace(value), optional}
		if _, err := sysctlPath(s.Key); !ok || err != nil {
			return nil, fmt.Errorf("%s: line %d: %.60q: want KEY = VALUE", name, n+1, line)
		}
		out = append(out, s)
	}
	return out, nil
}

// sysctlPath turns "net.ipv4.ip_forward" or "net/ipv4/conf/eth0.1/forwarding"
// into a path below /proc/sys: the first separator decides which one it is, and
// dots and slashes change places in the first form (sysctl.d(5)).
func sysctlPath(key string) (string, error) {
	i := strings.IndexAny(key, "./")
	if i >= 0 && key[i] == '.' {
		key = strings.NewReplacer(".", "/", "/", ".").Replace(key)
	}
	parts := strings.Split(key, "/")
	for _, p := range parts {
		if p == "" || p == "." || p == ".." || strings.ContainsAny(p, "\x00 \t") {
			return "", fmt.Errorf("sysctl %q: not the name of a setting", key)
		}
	}
	return filepath.Join(parts...), nil
}

// ApplySysctls writes settings below root ("/proc/sys") in their order and goes
// on after an error; the error names every setting that did not take.
func ApplySysctls(root string, settings []Setting) error {
	var errs []error
	for _, s := range settings {
		rel, err := sysctlPath(s.Key)
		if err == nil {
			err = os.WriteFile(filepath.Join(root, rel), []byte(s.Value+"\n"), 0)
		}
		if err != nil && !s.Optional {
			errs = append(errs, fmt.Errorf("sysctl %s = %s: %w", s.Key, s.Value, err))
		}
	}
	return errors.Join(errs...)
}

// LoadSysctls reads all *.conf of a directory in the order of their names. No
// directory means no settings.
func LoadSysctls(dir string) ([]Setting, error) {
	var out []Setting
	err := eachConf(dir, func(name string, data []byte) error {
		s, err := ParseSysctls(name, data)
		out = append(out, s...)
		return err
	})
	return out, err
}

// LoadModuleNames reads modules-load.d(5) files: one name a line.
func LoadModuleNames(dir string) ([]string, error) {
	var out []string
	err := eachConf(dir, func(name string, data []byte) error {
		for n, line := range strings.Split(string(data), "\n") {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' || line[0] == ';' {
				continue
			}
			if strings.ContainsAny(line, " \t/") {
				return fmt.Errorf("%s: line %d: %.60q: want the name of one module", name, n+1, line)
			}
			out = append(out, line)
		}
		return nil
	})
	return out, err
}

func eachConf(dir string, f func(name string, data []byte) error) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.conf"))
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	slices.Sort(files)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read settings: %w", err)
		}
		if err := f(file, data); err != nil {
			return err
		}
	}
	return nil
}
