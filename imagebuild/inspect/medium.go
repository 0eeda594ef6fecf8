package inspect

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"keelson/imagebuild/disk"
	"keelson/imagebuild/esp"
	"keelson/imagebuild/iso"
	"keelson/imagebuild/payload"
	"keelson/init/layout"
)

// medium is a CD or stick: a disk that has an ISO 9660 volume, and a payload to install disks from.
type medium struct {
	file               *os.File
	size               int64
	table              *table
	esp, root, payload partition
	trusted            *x509.Certificate

	files  map[string][]byte // of the ESP
	sums   map[string]string
	kernel *kernelImage
	used   int64 // of the root's partition
}

// medium checks what an installed disk does not have.
func (r *Report) medium(m *medium) {
	if err := m.volume(r.Release["IMAGE_VERSION"]); err != nil {
		r.problem(regionISO, "%v", err)
	}
	if err := r.installs(m); err != nil {
		r.problem(regionPayload, "%v", err)
	}
}

// volume renders the ISO 9660 volume anew and compares.
func (m *medium) volume(version string) error {
	epoch, err := strconv.ParseInt(m.kernel.params[layout.ParamEpoch], 10, 64)
	if err != nil {
		return fmt.Errorf("the command line has no time: %w", err)
	}
	first := m.table.first()
	if first != layout.Align {
		return fmt.Errorf("the first partition begins at byte %d: want %d", first, layout.Align)
	}
	there := make([]byte, first-disk.LeadAt)
	if _, err := m.file.ReadAt(there, disk.LeadAt); err != nil {
		return err
	}
	var loader []byte
	if want, ok := m.sums[sumCD]; ok {
		if loader, err = iso.Loader(there); err != nil {
			return err
		}
		if sum(loader) != want {
			return errors.New("what BIOS starts from a CD is not what was built")
		}
	}
	made, err := iso.Render(iso.Medium{
		Version: version, Time: time.Unix(epoch, 0), Size: m.size, BIOS: loader,
		EFI: m.esp.start, EFILen: m.esp.end - m.esp.start, Root: m.root.start, RootLen: m.used,
	}.Volume(), first)
	if err != nil {
		return err
	}
	return same(bytes.NewReader(there), int64(len(there)), made, disk.LeadAt)
}

// same says where the content of length bytes is not what was made, and zeros. at is what offsets are counted from.
func same(content io.ReaderAt, length int64, made []byte, at int64) error {
	if int64(len(made)) > length {
		return fmt.Errorf("%d bytes of it do not fit %d", len(made), length)
	}
	there := make([]byte, len(made))
	if _, err := content.ReadAt(there, 0); err != nil && err != io.EOF {
		return err
	}
	for i := range made {
		if there[i] != made[i] {
			return fmt.Errorf("byte %d is not what was built", at+int64(i))
		}
	}
	behind, err := firstNonZero(content, span{int64(len(made)), length})
	if err == nil && behind >= 0 {
		err = fmt.Errorf("byte %d should be zero", at+behind)
	}
	return err
}

// installs puts together the ESP that the payload would install, inspects it, and makes the payload anew.
func (r *Report) installs(m *medium) error {
	section := func(p partition, length int64) payload.Content {
		return payload.Content{Data: io.NewSectionReader(m.file, p.start, min(length, p.end-p.start)), Len: length}
	}
	there := section(m.payload, m.payload.end-m.payload.start)
	head := make([]byte, min(there.Len, layout.MaxPayloadHead))
	if _, err := there.Data.ReadAt(head, 0); err != nil {
		return err
	}
	says, data, err := layout.ParsePayload(head)
	if err != nil {
		return err
	}
	system := payload.System{
		Arch: "arm64", Root: section(m.root, m.used), MediumESP: section(m.esp, m.esp.end-m.esp.start),
	}
	kernel := m.files[esp.UKIPath(string(layout.SlotA))]
	system.Kernel = payload.Content{Data: bytes.NewReader(kernel), Len: int64(len(kernel))}
	if _, ok := m.files["/EFI/BOOT/BOOTX64.EFI"]; ok {
		system.Arch = "amd64"
	}
	installed, err := os.CreateTemp("", "keelson-installed-*")
	if err != nil {
		return err
	}
	defer os.Remove(installed.Name())
	defer installed.Close()
	for _, p := range says.Partitions {
		switch p.Number {
		case layout.NumberBIOS:
			core, ok := m.table.find(layout.LabelBIOS)
			if !ok {
				return errors.New("it installs a BIOS boot partition: the medium has none")
			}
			system.Core = section(core, p.Length)
		case layout.NumberESP:
			if p.Length != layout.ESPSize {
				return fmt.Errorf("it installs an ESP of %d bytes: want %d", p.Length, layout.ESPSize)
			}
			rest := payload.Content{Data: io.NewSectionReader(there.Data, data, there.Len-data), Len: there.Len - data}
			if err := assemble(installed, p, map[int]payload.Content{layout.NumberESP: system.MediumESP, layout.NumberPayload: rest}); err != nil {
				return err
			}
			system.ESP = payload.Content{Data: installed, Len: p.Length}
		}
	}
	if system.ESP.Data == nil {
		return errors.New("it installs no ESP")
	}
	if err := r.installed(m, installed); err != nil {
		return err
	}
	code, err := says.Boot()
	if err != nil {
		return err
	}
	if want, ok := m.sums[sumBootCode]; ok && sum(padded(code, bootLen)) != want {
		return errors.New("the boot code that it installs is not the one that was built")
	}
	all, err := system.Partitions()
	if err != nil {
		return err
	}
	made, err := payload.Make(r.Release["IMAGE_VERSION"], says.BootCode, all)
	if err != nil {
		return err
	}
	return same(there.Data, there.Len, made, 0)
}

// assemble carries out the extents of a partition.
func assemble(to *os.File, p layout.PayloadPartition, from map[int]payload.Content) error {
	if err := to.Truncate(p.Length); err != nil {
		return err
	}
	for _, e := range p.Extents {
		c, ok := from[e.From]
		if !ok || e.Offset > c.Len-e.Length {
			return fmt.Errorf("it takes %d bytes at %d of partition %d: they are not there", e.Length, e.Offset, e.From)
		}
		if _, err := io.Copy(io.NewOffsetWriter(to, e.To), io.NewSectionReader(c.Data, e.Offset, e.Length)); err != nil {
			return err
		}
	}
	return nil
}

// installed inspects the ESP of an installed disk: it must start the same root as the medium.
func (r *Report) installed(m *medium, f *os.File) error {
	sub := &Report{}
	p := partition{label: layout.LabelESP, end: layout.ESPSize}
	files := sub.volume(f, p)
	sums := sub.sums(files)
	kernel := sub.programs(files, m.trusted)
	r.Trusted = r.Trusted && sub.Trusted
	if kernel != nil {
		sub.rewrite(f, p, files, kernel)
	}
	switch {
	case len(sub.Problems) > 0:
		return fmt.Errorf("it installs a system whose %s", sub.Problems[0])
	case len(sub.Added) > 0:
		return fmt.Errorf("it installs %s, which was not built", sub.Added[0])
	case kernel.Cmdline+" "+layout.ParamLive+"="+layout.LiveMedium != m.kernel.Cmdline:
		return fmt.Errorf("it installs a system with the command line %q", kernel.Cmdline)
	case (sub.Signer == nil) != (r.Signer == nil) || sub.Signer != nil && !sub.Signer.Equal(r.Signer):
		return errors.New("what it installs has another signer")
	}
	for _, name := range []string{sumBootCode, sumBIOS, sumSuperblock} {
		if sums[name] != m.sums[name] {
			return fmt.Errorf("it installs a system with another %s", name)
		}
	}
	return nil
}
