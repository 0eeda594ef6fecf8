// Package apply puts the user's settings on the machine: files, certificates,
// time zone, names and kernel settings.
//
// The settings come from userdata.Load, checked; the boot calls Apply once they
// are accepted. Everything is idempotent, since it happens on every boot: /etc
// starts anew each time, /etc/rancher and /var keep what was written. Files
// that an earlier user-data wrote and the present one does not are removed from
// there. The package reads no source of user-data and starts nothing.
package apply

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keelson/init/file"
	"keelson/init/kernel"
	"keelson/init/layout"
	"keelson/init/userdata"

	"golang.org/x/sys/unix"
)

// Config says where the machine is.
type Config struct {
	Root   string // "/", or a folder in a test
	Record string // list of the files written, below Root
}

// DefaultConfig is the running machine.
func DefaultConfig() Config {
	return Config{Root: "/", Record: filepath.Join(layout.StateKeelson, "written-files.json")}
}

func (c Config) path(p string) string { return filepath.Join(c.Root, p) }

// Apply puts cfg in force. The error names every part that did not take, files
// with the place in the user-data that asked for them.
func Apply(c Config, cfg *userdata.Config) error {
	return errors.Join(
		c.files(cfg.Files),
		c.certificates(cfg.CACerts),
		c.timezone(cfg.Timezone),
		c.sysctls(cfg.Sysctls),
	)
}

// files writes all files, deferred ones last.
func (c Config) files(files []userdata.File) error {
	before, err := c.readRecord()
	if err != nil {
		return err
	}
	ordered := slices.Clone(files)
	slices.SortStableFunc(ordered, func(a, b userdata.File) int {
		switch {
		case a.Defer == b.Defer:
			return 0
		case b.Defer:
			return -1
		}
		return 1
	})
	var errs []error
	var paths []string
	written := map[string][]byte{}
	for _, f := range ordered {
		data := f.Data
		if f.Append {
			base, seen := written[f.Path]
			if !seen {
				if base, err = c.appendBase(f.Path, ordered); err != nil {
					errs = append(errs, fileError(f, err))
					continue
				}
			}
			data = append(bytes.Clone(base), f.Data...)
		}
		if err := c.writeFile(f.Path, data, f.Mode); err != nil {
			errs = append(errs, fileError(f, err))
			continue
		}
		written[f.Path] = data
		if !slices.Contains(paths, f.Path) {
			paths = append(paths, f.Path)
		}
	}
	for _, old := range before {
		if !slices.Contains(paths, old) {
			if err := os.Remove(c.path(old)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("remove a file of earlier user-data: %w", err))
				paths = append(paths, old)
			}
		}
	}
	return errors.Join(append(errs, c.writeRecord(paths))...)
}

// appendBase is what a file held before this user-data appended to it: on STATE
// the last boot's text is still there, and must not come twice.
func (c Config) appendBase(path string, files []userdata.File) ([]byte, error) {
	b, err := os.ReadFile(c.path(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []byte
	for _, f := range files {
		if f.Path == path && f.Append {
			all = append(all, f.Data...)
		}
	}
	return bytes.TrimSuffix(b, all), nil
}

func fileError(f userdata.File, err error) error {
	return fmt.Errorf("%s: line %d: write_files: %s: %w", f.Source, f.Line, f.Path, cause(err))
}

// cause drops the path, which the message has already.
func cause(err error) error {
	if errors.Is(err, unix.EROFS) {
		return errors.New("the root is read-only: write below /etc, /var or /run")
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func (c Config) writeFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(c.path(path)), 0o755); err != nil {
		return err
	}
	return file.Write(c.path(path), data, mode)
}

func (c Config) readRecord() ([]string, error) {
	b, err := os.ReadFile(c.path(c.Record))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list of written files: %w", err)
	}
	var paths []string
	if err := json.Unmarshal(b, &paths); err != nil {
		return nil, fmt.Errorf("list of written files %s: %w", c.Record, err)
	}
	return paths, nil
}

// writeRecord remembers the files that outlive a boot.
func (c Config) writeRecord(paths []string) error {
	kept := []string{}
	for _, p := range paths {
		if strings.HasPrefix(p, layout.EtcRancher+"/") || strings.HasPrefix(p, layout.State+"/") {
			kept = append(kept, p)
		}
	}
	b, err := json.Marshal(kept)
	if err != nil {
		return fmt.Errorf("list of written files: %w", err)
	}
	return c.writeFile(c.Record, append(b, '\n'), 0o600)
}

// bundle is where programs look for trusted certificates.
const bundle = "/etc/ssl/certs/ca-certificates.crt"

func (c Config) certificates(ca userdata.CACerts) error {
	if len(ca.Trusted) == 0 && !ca.RemoveDefaults {
		return nil
	}
	var pem []byte
	if !ca.RemoveDefaults {
		var err error
		if pem, err = os.ReadFile(c.path(bundle)); err != nil {
			return fmt.Errorf("ca_certs: %w", err)
		}
	}
	for _, cert := range ca.Trusted {
		pem = append(bytes.TrimRight(pem, "\n"), '\n')
		pem = append(pem, strings.TrimSpace(cert)...)
		pem = append(pem, '\n')
	}
	if err := c.writeFile(bundle, bytes.TrimLeft(pem, "\n"), 0o644); err != nil {
		return fmt.Errorf("ca_certs: %w", err)
	}
	return nil
}

// timezone links /etc/localtime; UTC where nobody says.
func (c Config) timezone(name string) error {
	if name == "" {
		name = "Etc/UTC"
	}
	target := filepath.Join(layout.Zoneinfo, name)
	if _, err := os.Stat(c.path(target)); err != nil {
		return fmt.Errorf("timezone: %q is not one of %s", name, layout.Zoneinfo)
	}
	link := c.path("/etc/localtime")
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("timezone: %w", err)
	}
	if err := os.Symlink(target, link); err != nil {
		return fmt.Errorf("timezone: %w", err)
	}
	return nil
}

func (c Config) sysctls(list []userdata.Sysctl) error {
	var settings []kernel.Setting
	for _, s := range list {
		settings = append(settings, kernel.Setting{Key: s.Key, Value: s.Value})
	}
	return kernel.ApplySysctls(c.path("/proc/sys"), settings)
}

// Names makes the machine's name known: to the kernel, /etc/hostname and
// /etc/hosts.
func Names(c Config, hostname, fqdn, machineID string, set func([]byte) error) error {
	if err := set([]byte(hostname)); err != nil {
		return fmt.Errorf("set host name %q: %w", hostname, err)
	}
	names := hostname
	if fqdn != "" && fqdn != hostname {
		names = fqdn + " " + hostname
	}
	hosts := "127.0.0.1 localhost\n127.0.1.1 " + names + "\n::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n"
	for path, text := range map[string]string{
		"/etc/hostname": hostname + "\n", "/etc/hosts": hosts, "/etc/machine-id": machineID + "\n",
	} {
		if err := c.writeFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
