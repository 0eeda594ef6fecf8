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
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"keelson/init/layout"
	"keelson/init/metadata"
	"keelson/init/metadata/azure"
	"keelson/init/metadata/backdoor"
	"keelson/init/metadata/openstack"
	"keelson/init/metadata/vmware"
	"keelson/init/userdata"
)

// names are the four files of a NoCloud source.
func names() []string { return []string{"user-data", "vendor-data", "meta-data", "network-config"} }

// ErrUnanswered says that metadata which the machine belongs to could not be
// had, so that what Collect returns is not what somebody gave to this machine.
var ErrUnanswered = errors.New("the machine's own user-data is not known")

// errKept goes with a reason why the source itself is not followed.
var errKept = errors.New("the user-data of the last boot is used")

// Collect reads every source. An error says that one of them could not be read;
// the documents of the others are returned with it. Documents from the stored
// copy are used when no source gave any, and when metadata does not answer.
func Collect(ctx context.Context, cfg Config) (userdata.Documents, error) {
	found, err := present(cfg)
	stored, storedErr := readStored(cfg.Stored)
	remotes := choose(cfg, found)
	if found.silent != nil && len(found.local.User) == 0 && len(remotes) == 0 {
		if !stored.Empty() {
			return stored, errors.Join(err, storedErr, found.silent, errKept)
		}
		return found.documents(), errors.Join(err, storedErr, fmt.Errorf("%w: %w", found.silent, ErrUnanswered))
	}
	err = errors.Join(err, found.silent)
	if len(remotes) > 0 {
		return collectRemote(ctx, cfg, found, remotes, stored, errors.Join(err, storedErr))
	}
	docs := found.documents()
	if !docs.Empty() {
		return docs, err
	}
	err = errors.Join(err, storedErr)
	if !stored.Empty() || cfg.Settle <= 0 || cfg.NextDevice == nil {
		return stored, err
	}
	wait, cancel := context.WithTimeout(ctx, cfg.Settle)
	defer cancel()
	for cfg.NextDevice(wait) == nil {
		found, err = present(cfg)
		if docs = found.documents(); !docs.Empty() {
			break
		}
	}
	if remotes := choose(cfg, found); len(remotes) > 0 { // a volume that names an address
		return collectRemote(ctx, cfg, found, remotes, stored, err)
	}
	return docs, errors.Join(err, ctx.Err())
}

// found is what local sources gave.
type found struct {
	esp   userdata.Documents // the image's own, weaker than a cloud's
	local userdata.Documents
	// silent says why the hypervisor's own values are not known.
	silent error
	drive  bool // a ConfigDrive is there, which has all that the service has
}

func (f found) documents() userdata.Documents { return join(f.esp, f.local) }

// join lays lists behind each other, the weakest first.
func join(all ...userdata.Documents) (out userdata.Documents) {
	for _, d := range all {
		out.Vendor, out.User = append(out.Vendor, d.Vendor...), append(out.User, d.User...)
		out.Meta, out.Network = append(out.Meta, d.Meta...), append(out.Network, d.Network...)
	}
	return out
}

// present reads the local sources that are there now, the weakest first.
func present(cfg Config) (found, error) {
	var f found
	var errs []error
	if cfg.ESP != "" {
		errs = append(errs, cfg.mounted(Volume{Device: cfg.ESP, FSType: "vfat"}, "ESP", func(dir string) error {
			return readFolder(filepath.Join(dir, layout.ESPDir), "ESP", &f.esp)
		}))
	}
	if vmware.Here(cfg.Machine) {
		f.local, f.silent = vmware.Read(cfg.guestinfo(), cfg.Machine)
	}
	if azure.Here(cfg.Machine) { // its CD knows no instance, and is gone after the first boot
		f.local.Meta = metadata.Meta("SMBIOS", strings.ToLower(cfg.Machine.ProductUUID), "")
	}
	volumes, err := cfg.volumes()
	errs = append(errs, err)
	for _, v := range volumes {
		errs = append(errs, cfg.volume(v, &f))
	}
	if cfg.FwCfg != "" {
		for _, name := range names() {
			errs = append(errs, readFile(filepath.Join(cfg.FwCfg, name, "raw"), "fw_cfg", name, &f.local))
		}
	}
	doc, ok, err := fromCmdline(cfg.Cmdline)
	if ok {
		f.local.User = append(f.local.User, doc)
	}
	for _, s := range seeds(cfg, f.local) {
		f.local = join(f.local, s.own())
	}
	return f, errors.Join(append(errs, err)...)
}

func (cfg Config) guestinfo() func(func(backdoor.Port) error) error {
	if cfg.Guestinfo != nil {
		return cfg.Guestinfo
	}
	return backdoor.Do
}

func (cfg Config) volumes() ([]Volume, error) {
	if cfg.Volumes != nil {
		return cfg.Volumes()
	}
	return FindVolumes(DefaultBlock, azure.Here(cfg.Machine) || vmware.Here(cfg.Machine))
}

// azureCD begins what documents of that CD are called.
const azureCD = "Azure CD "

// volume reads one volume in the way that its label asks for.
func (cfg Config) volume(v Volume, f *found) error {
	switch {
	case !isConfigDrive(v.Label) && (!azure.Here(cfg.Machine) && !vmware.Here(cfg.Machine) || slices.Contains(layout.NoCloudLabels(), v.Label)):
		source := "cidata volume " + v.Device
		return cfg.mounted(v, source, func(dir string) error { return readFolder(dir, source, &f.local) })
	case isConfigDrive(v.Label):
		source := "ConfigDrive " + v.Device
		return cfg.mounted(v, source, func(dir string) error {
			docs, err := openstack.Read(source, func(name string) ([]byte, error) {
				return readDocument(filepath.Join(dir, openstack.Folder, name), name)
			})
			if err == nil {
				f.local, f.drive = join(f.local, docs), true
			}
			return err
		})
	}
	// The CD of Azure and that of VMware hold a file of the same name.
	source, parse := azureCD+v.Device, azure.ReadOVF
	if vmware.Here(cfg.Machine) {
		source, parse = "VMware CD "+v.Device, vmware.ReadOVF
	}
	return cfg.mounted(v, source, func(dir string) error {
		data, err := readDocument(filepath.Join(dir, azure.OVF), azure.OVF)
		if errors.Is(err, metadata.ErrNotFound) {
			return nil // some other CD
		}
		if err != nil {
			return fmt.Errorf("%s: %w", source, err)
		}
		docs, err := parse(source, data)
		f.local = join(f.local, docs)
		return err
	})
}

// mounted has a volume read by way of a folder, and unmounts it.
func (cfg Config) mounted(v Volume, source string, read func(dir string) error) (err error) {
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
	return read(m.Dir)
}

// readFolder reads the four files of NoCloud.
func readFolder(dir, source string, docs *userdata.Documents) error {
	for _, name := range names() {
		if err := readFile(filepath.Join(dir, name), source, name, docs); err != nil {
			return err
		}
	}
	return nil
}

// filesystemModules names what the kernel would ask modprobe for. The code
// pages are those that Debian's kernel has as defaults for vfat.
func filesystemModules(fstype string) []string {
	switch fstype {
	case "iso9660":
		return []string{"isofs"}
	case "udf":
		return []string{"udf"}
	}
	return []string{"vfat", "nls_cp437", "nls_ascii"}
}

// readFile adds one document where the file exists and holds anything.
func readFile(path, source, name string, docs *userdata.Documents) error {
	data, err := readDocument(path, name)
	if errors.Is(err, metadata.ErrNotFound) || err == nil && len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	add(docs, name, userdata.Document{Source: source + ": " + name, Data: data})
	return nil
}

// readDocument reads one bounded file, or metadata.ErrNotFound.
func readDocument(path, name string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("%s: %w", name, metadata.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: not a regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxDocument {
		return nil, fmt.Errorf("%s is larger than %d MiB; make it smaller", name, maxDocument>>20)
	}
	return data, nil
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
