package main

import (
	"context"
	"encoding/base64"
	"os"

	"keelson/imagebuild/payload"
	"keelson/init/layout"
)

// The stages of what a CD or stick installs a disk from. The medium has nearly all of it for itself.

// installedESP is the EFI system partition of an installed disk: the image's own, but for user-data that is embedded in it.
// All user-data of the installer goes to the installed state, and a source beside it would be taken in its place.
func (s *state) installedESP() string {
	if s.config.Definition.UserData == "" {
		return s.part("esp.img")
	}
	return s.part("installed-esp.img")
}

// installedESPKey is none where there is nothing to write.
func installedESPKey(s *state) (string, error) {
	if s.config.Definition.UserData == "" {
		return "", nil
	}
	key, err := espKey(s)
	return keyOf("installed esp", key), err
}

func writeInstalledESP(_ context.Context, s *state) error {
	if s.config.Definition.UserData == "" {
		return nil
	}
	core, err := s.grubCore()
	if err != nil {
		return err
	}
	plain := *s
	plain.config.Definition.UserData = ""
	return plain.system(core, "installed-esp.img", "keelson.efi", s.cmdline, layout.ESPSize)
}

func payloadKey(s *state) (string, error) {
	sums, err := s.hashes(append(s.diskParts("live-esp.img"), s.installedESP())...)
	return keyOf("payload", sums, s.source.Version), err
}

func writePayload(_ context.Context, s *state) error {
	core, err := s.grubCore()
	if err != nil {
		return err
	}
	rootType, err := layout.RootType(s.config.Arch)
	if err != nil {
		return err
	}
	part := func(number int, label, kind string, attributes uint64, size int64) layout.PayloadPartition {
		return layout.PayloadPartition{Number: number, Label: label, Type: kind, Attributes: attributes, Size: size}
	}
	open := opener{}
	defer open.close()
	var all []payload.Partition
	if s.machine().bios {
		all = append(all, payload.Partition{
			PayloadPartition: part(layout.NumberBIOS, layout.LabelBIOS, layout.TypeBIOSBoot, 0, layout.BIOSSize),
			Content:          open.content(s.part("core.img")), From: layout.NumberBIOS,
		})
	}
	root := open.content(s.part("root.erofs"))
	all = append(all, payload.Partition{
		PayloadPartition: part(layout.NumberESP, layout.LabelESP, layout.TypeESP, 0, layout.ESPSize),
		Content:          open.content(s.installedESP()), From: layout.NumberESP, Medium: open.content(s.part("live-esp.img")),
	}, payload.Partition{
		PayloadPartition: part(layout.NumberRootA, layout.LabelRootA, rootType, layout.AttrRoot, (root.Len+layout.Align-1)/layout.Align*layout.Align),
		Content:          root, From: layout.NumberLive,
	})
	if open.err != nil {
		return open.err
	}
	made, err := payload.Make(s.source.Version, base64.StdEncoding.EncodeToString(core.Boot), all)
	if err != nil {
		return err
	}
	return replace(s.part("payload"), func(f *os.File) error { _, err := f.Write(made); return err })
}

// opener opens files until one fails.
type opener struct {
	files []*os.File
	err   error
}

func (o *opener) content(name string) payload.Content {
	if o.err != nil {
		return payload.Content{}
	}
	f, err := os.Open(name)
	if err != nil {
		o.err = err
		return payload.Content{}
	}
	o.files = append(o.files, f)
	info, err := f.Stat()
	if err != nil {
		o.err = err
		return payload.Content{}
	}
	return payload.Content{Data: f, Len: info.Size()}
}

func (o *opener) close() {
	for _, f := range o.files {
		f.Close()
	}
}
