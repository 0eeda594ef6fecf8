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
	core.CD = nil
	plain := *s
	plain.config.Definition.UserData = ""
	return plain.system(core, "installed-esp.img", "keelson.efi", s.cmdline, layout.ESPSize)
}

func payloadKey(s *state) (string, error) {
	sums, err := s.hashes(append(s.diskParts("live-esp.img"), s.installedESP())...)
	return keyOf("payload 2", sums, s.source.Version), err
}

func writePayload(_ context.Context, s *state) error {
	core, err := s.grubCore()
	if err != nil {
		return err
	}
	open := opener{}
	defer open.close()
	system := payload.System{
		Arch: s.config.Arch, ESP: open.content(s.installedESP()), Root: open.content(s.part("root.erofs")), MediumESP: open.content(s.part("live-esp.img")),
		Kernel: open.content(s.part("live.efi")),
	}
	if s.machine().bios {
		system.Core = open.content(s.part("core.img"))
	}
	if open.err != nil {
		return open.err
	}
	all, err := system.Partitions()
	if err != nil {
		return err
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
