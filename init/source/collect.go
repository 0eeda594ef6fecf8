package source

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"keelson/init/layout"
	"keelson/init/userdata"
)

// names are the four files of a NoCloud source.
func names() []string { return []string{"user-data", "vendor-data", "meta-data", "network-config"} }

// Collect reads every source. An error says that one of them could not be read;
// the documents of the others are returned with it. Documents from the stored
// copy are used when no source gave any.
func Collect(ctx context.Context, cfg Config) (userdata.Documents, error) {
	docs, err := present(cfg)
	if !docs.Empty() {
		return docs, err
	}
	stored, storedErr := readStored(cfg.Stored)
	err = errors.Join(err, storedErr)
	if !stored.Empty() || cfg.Settle <= 0 || cfg.NextDevice == nil {
		return stored, err
	}
	wait, cancel := context.WithTimeout(ctx, cfg.Settle)
	defer cancel()
	for cfg.NextDevice(wait) == nil {
		if docs, err = present(cfg); !docs.Empty() {
			break
		}
	}
	return docs, errors.Join(err, ctx.Err())
}

// present reads the sources that are there now, the weakest first.
func present(cfg Config) (userdata.Documents, error) {
	var docs userdata.Documents
	var errs []error
	if cfg.ESP != "" {
		errs = append(errs, volume(cfg, Volume{Device: cfg.ESP, FSType: "vfat"}, layout.ESPDir, "ESP", &docs))
	}
	volumes, err := cfg.volumes()
	errs = append(errs, err)
	for _, v := range volumes {
		errs = append(errs, volume(cfg, v, "", "cidata volume "+v.Device, &docs))
	}
	if cfg.FwCfg != "" {
		for _, name := range names() {
			errs = append(errs, readFile(filepath.Join(cfg.FwCfg, name, "raw"), "fw_cfg", name, &docs))
		}
	}
	doc, ok, err := fromCmdline(cfg.Cmdline)
	if ok {
		docs.User = append(docs.User, doc)
	}
	return docs, errors.Join(append(errs, err)...)
}

func (cfg Config) volumes() ([]Volume, error) {
	if cfg.Volumes != nil {
		return cfg.Volumes()
	}
	return FindVolumes(DefaultBlock)
}

// volume mounts a file system, reads what is there and unmounts it.
func volume(cfg Config, v Volume, dir, source string, docs *userdata.Documents) (err error) {
	var missing error
	if cfg.LoadModule != nil {
		missing = cfg.LoadModule(filesystemModules(v.FSType)...)
	}
	mount := cfg.Mount
	if mount == nil {
		mount = MountReadOnly
	}
	m, err := mount(v)
	if err != nil { // a module that is absent may as well be built in
		return fmt.Errorf("%s: %w", source, errors.Join(err, missing))
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	for _, name := range names() {
		if err := readFile(filepath.Join(m.Dir, dir, name), source, name, docs); err != nil {
			return err
		}
	}
	return nil
}

// filesystemModules names what the kernel would ask modprobe for. The code
// pages are those that Debian's kernel has as defaults for vfat.
func filesystemModules(fstype string) []string {
	if fstype == "iso9660" {
		return []string{"isofs"}
	}
	return []string{"vfat", "nls_cp437", "nls_ascii"}
}

// readFile adds one document where the file exists.
func readFile(path, source, name string, docs *userdata.Documents) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: read %s: %w", source, name, err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return fmt.Errorf("%s: read %s: not a regular file", source, name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return fmt.Errorf("%s: read %s: %w", source, name, err)
	}
	if len(data) > maxDocument {
		return fmt.Errorf("%s: %s is larger than %d MiB; make it smaller", source, name, maxDocument>>20)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	add(docs, name, userdata.Document{Source: source + ": " + name, Data: data})
	return nil
}

func add(docs *userdata.Documents, name string, d userdata.Document) {
	switch name {
	case "user-data":
		docs.User = append(docs.User, d)
	case "vendor-data":
		docs.Vendor = append(docs.Vendor, d)
	case "meta-data":
		docs.Meta = append(docs.Meta, d)
	case "network-config":
		docs.Network = append(docs.Network, d)
	}
}

// fromCmdline decodes keelson.user-data=. Both alphabets of base64 and missing
// padding are accepted, since boot loaders differ in what they let pass.
func fromCmdline(cmdline string) (doc userdata.Document, ok bool, err error) {
	const source = "kernel command line: " + layout.ParamUserData
	for _, word := range strings.Fields(cmdline) {
		value, found := strings.CutPrefix(word, layout.ParamUserData+"=")
		if !found || value == "" {
			continue
		}
		value = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(strings.Trim(value, `"`), "="))
		data, err := base64.RawStdEncoding.DecodeString(value)
		if err != nil {
			return doc, false, fmt.Errorf("%s: not base64: %w; encode the document by base64 -w0", source, err)
		}
		doc, ok = userdata.Document{Source: source, Data: data, Public: true}, true
	}
	return doc, ok, nil
}
