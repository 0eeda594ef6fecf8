package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"keelson/imagebuild/repro"
)

// reproduction is what is built twice.
type reproduction struct {
	arch, artefacts string
	fresh, locked   bool
	trust           trust
	definitions     []string // all of configs/images where empty
	cache           string
}

// commands are the builds to run, by this very program. Files that lie
// outside of the checkout are given by their whole names.
func (r reproduction) commands(self string) ([][]string, error) {
	definitions := r.definitions
	if len(definitions) == 0 {
		var err error
		if definitions, err = filepath.Glob("configs/images/*.yaml"); err != nil {
			return nil, err
		}
	}
	if len(definitions) == 0 {
		return nil, errors.New("repro: there is no image definition")
	}
	var common []string
	for _, f := range []struct{ name, value string }{{"--sign-key", r.trust.key}, {"--sign-cert", r.trust.cert}, {"--enroll", r.trust.enroll}} {
		if f.value == "" {
			continue
		}
		abs, err := filepath.Abs(f.value)
		if err != nil {
			return nil, err
		}
		common = append(common, f.name, abs)
	}
	if r.artefacts != "" {
		common = append(common, "--artefacts", r.artefacts)
	}
	if r.locked {
		common = append(common, "--locked")
	}
	var out [][]string
	for _, d := range definitions {
		out = append(out, append([]string{self, "build", "--arch", r.arch, "--definition", d}, common...))
	}
	return out, nil
}

// reproduce builds twice and says what differs.
func reproduce(ctx context.Context, r reproduction, stdout, stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("repro: %w", err)
	}
	commands, err := r.commands(self)
	if err != nil {
		return err
	}
	if r.cache == "" {
		r.cache = filepath.Join("build", "cache")
	}
	if r.cache, err = filepath.Abs(r.cache); err != nil {
		return fmt.Errorf("repro: %w", err)
	}
	if err := os.Setenv("KEELSON_CACHE", r.cache); err != nil {
		return fmt.Errorf("repro: %w", err)
	}
	source, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("repro: %w", err)
	}
	work := filepath.Join(source, "build", "repro")
	same, differences, err := repro.Run(ctx, repro.Config{
		Source: source, Work: work, Commands: commands, Result: "build", Fresh: r.fresh, Output: stderr,
		// The builder's memory is about files of this machine.
		Ignore: []string{"memo.json", "home", "cache"},
	})
	if err != nil {
		return err
	}
	for _, d := range differences {
		fmt.Fprintln(stdout, d)
	}
	if len(differences) > 0 {
		return fmt.Errorf("repro: %d of %d files differ; both builds are in %s", len(differences), same+len(differences), work)
	}
	fmt.Fprintf(stdout, "%d files, 0 bytes differ\n", same)
	return os.RemoveAll(work)
}
