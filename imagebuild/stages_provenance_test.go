package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/imagebuild/internal/testkey"
	"keelson/imagebuild/provenance"
	"keelson/imagebuild/sbom"
)

func TestProvenanceStage(t *testing.T) {
	t.Chdir("..")
	s, _ := newState(t)
	s.config.Out = filepath.Join(s.config.Dir, "x-amd64.raw")
	s.source.Epoch, s.source.Commit = time.Unix(1700000000, 0), "c0ffee"
	s.bill = sbom.Document{Suite: "bookworm", Components: []sbom.Component{
		{Kind: sbom.Debian, Name: "tzdata", Version: "1", Arch: "amd64", SHA256: strings.Repeat("ab", 32)},
		{Kind: sbom.Module, Name: "go.yaml.in/yaml/v3", Version: s.source.Modules["go.yaml.in/yaml/v3"]},
		{Kind: sbom.Program, Name: "init", Version: "1"},
	}}
	if err := os.WriteFile(s.config.Out, []byte("image"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := []stage{
		{name: "go programs", files: parts("bin")}, {name: "lint"},
		{name: "disk", files: func(s *state) []string { return []string{s.config.Out} }},
	}
	st := provenanceStage(before)
	s.signer = testkey.New(t, "signer")
	if err := st.run(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	signed, err := os.ReadFile(s.artefact(envelopeExt))
	if err != nil {
		t.Fatal(err)
	}
	text, err := provenance.Open(signed, &s.signer.Key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := os.ReadFile(s.artefact(provenanceExt)); err != nil || string(plain) != string(text) {
		t.Errorf("the envelope holds another statement: %v", err)
	}
	var got struct {
		Subject []struct {
			Name   string
			Digest map[string]string
		}
		Predicate struct {
			BuildDefinition struct{ ResolvedDependencies []provenance.Resource }
		}
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	// echo -n image | sha256sum
	if len(got.Subject) != 1 || got.Subject[0].Name != "x-amd64.raw" || got.Subject[0].Digest["sha256"] != "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d" {
		t.Errorf("subjects: %+v", got.Subject)
	}
	if inputs := got.Predicate.BuildDefinition.ResolvedDependencies; len(inputs) != 3 {
		t.Errorf("inputs: got %+v, want sources, a package and a module", inputs)
	}
	s.signer = nil
	if err := st.run(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.artefact(envelopeExt)); !os.IsNotExist(err) {
		t.Errorf("the envelope of the build before is still there: %v", err)
	}
}
