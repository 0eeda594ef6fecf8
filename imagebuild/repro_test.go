package main

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestReproCommands(t *testing.T) {
	t.Chdir("..")
	all, err := filepath.Glob("configs/images/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := reproduction{arch: "amd64"}.commands("self")
	if err != nil || len(got) != len(all) || len(all) == 0 {
		t.Fatalf("got %q, %v, want one for each of %q", got, err, all)
	}
	key, err := filepath.Abs("key")
	if err != nil {
		t.Fatal(err)
	}
	got, err = reproduction{arch: "amd64", artefacts: "raw", locked: true, trust: trust{key: "key"}, definitions: []string{"one.yaml"}}.commands("self")
	want := []string{"self", "build", "--arch", "amd64", "--definition", "one.yaml", "--sign-key", key, "--artefacts", "raw", "--locked"}
	if err != nil || len(got) != 1 || !slices.Equal(got[0], want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	t.Chdir(t.TempDir())
	var out bytes.Buffer
	if err := run(context.Background(), []string{"repro"}, &out, &out); err == nil || !strings.Contains(err.Error(), "no image definition") {
		t.Errorf("without definitions: got %v", err)
	}
}
