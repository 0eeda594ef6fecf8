package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"keelson/imagebuild/provenance"
	"keelson/imagebuild/sbom"
)

// Endings of the files that say where an image comes from.
const (
	provenanceExt = ".provenance.json"
	envelopeExt   = ".provenance.dsse.json"
)

// provenanceStage says what was made from what. It comes last: it is about
// everything that stages before it left.
func provenanceStage(before []stage) stage {
	return stage{
		name:  "provenance",
		run:   func(_ context.Context, s *state) error { return writeProvenance(s, before) },
		files: func(s *state) []string { return []string{s.artefact(provenanceExt)} },
	}
}

// artefacts are the files that stages leave: parts, and what is beside them.
func artefacts(s *state, stages []stage) []string {
	var out []string
	for _, st := range stages {
		// Kernel and programs are inputs by another name.
		if st.files == nil || st.name == "kernel" || st.name == "go programs" {
			continue
		}
		out = append(out, st.files(s)...)
	}
	return out
}

func writeProvenance(s *state, before []stage) error {
	b := provenance.Build{
		Toolchain: runtime.Version(),
		Parameters: map[string]string{
			"arch": s.config.Arch, "definition": s.config.Definition.Name, "locked": strconv.FormatBool(s.config.Locked),
			"epoch": s.epoch(), "signer": s.signer.ID(),
		},
	}
	for _, file := range artefacts(s, before) {
		sum, err := s.memo.File(file)
		if err != nil {
			return err
		}
		b.Subjects = append(b.Subjects, provenance.Resource{Name: filepath.Base(file), Digest: map[string]string{"sha256": sum}})
	}
	var err error
	if b.Inputs, err = s.inputs(); err != nil {
		return err
	}
	text, err := provenance.Render(b)
	if err != nil {
		return err
	}
	if err := replace(s.artefact(provenanceExt), func(f *os.File) error { _, err := f.Write(text); return err }); err != nil {
		return err
	}
	if s.signer == nil {
		// An envelope of another build would be about other artefacts.
		if err := os.Remove(s.artefact(envelopeExt)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("provenance: %w", err)
		}
		return nil
	}
	signed, err := provenance.Sign(text, s.signer)
	if err != nil {
		return err
	}
	return replace(s.artefact(envelopeExt), func(f *os.File) error { _, err := f.Write(signed); return err })
}

// inputs are the sources, the packages and the modules.
func (s *state) inputs() ([]provenance.Resource, error) {
	gosum, err := os.ReadFile("go.sum")
	if err != nil {
		return nil, fmt.Errorf("provenance: %w", err)
	}
	hashes := provenance.ModuleHashes(gosum)
	out := []provenance.Resource{{Name: "source", Digest: map[string]string{"gitCommit": s.source.Commit}}}
	seen := map[string]bool{}
	for _, c := range s.bill.Components {
		purl := c.PURL(s.bill.Suite)
		if purl == "" || seen[purl] {
			continue
		}
		seen[purl] = true
		r := provenance.Resource{URI: purl}
		switch {
		case c.Kind == sbom.Debian, c.Kind == sbom.Library:
			r.Digest = map[string]string{"sha256": c.SHA256}
		case hashes[c.Name+"@"+c.Version] != "":
			r.Digest = map[string]string{"dirHash": hashes[c.Name+"@"+c.Version]}
		}
		out = append(out, r)
	}
	return out, nil
}
