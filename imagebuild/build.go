package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"keelson/imagebuild/definition"
	"keelson/imagebuild/input"
	"keelson/imagebuild/kernel"
	"keelson/imagebuild/memo"
	"keelson/imagebuild/pkcs7"
	"keelson/imagebuild/sbom"
	"keelson/imagebuild/tree"
	"keelson/init/layout"
)

// Config of a build.
type Config struct {
	Arch       string
	Definition definition.Definition
	Out        string   // the image
	Artefacts  []string // what is made of it besides
	Dir        string   // its parts
	Bin        string   // Go programs, which images of one architecture share
	Cache      string
	Locked     bool
	Epoch      string // SOURCE_DATE_EPOCH
	Log        *slog.Logger
	Stdout     io.Writer
	Trust      trust // who signs
}

// stage is one step of a build.
type stage struct {
	name string
	// key names everything the stage's files are made from; nil: always run.
	key func(*state) (string, error)
	run func(context.Context, *state) error
	// files are what it leaves, for the table; with a key, the stage is
	// skipped as long as they are there and the key is the same.
	files func(*state) []string
}

// stages is the whole build, in order: inputs → rootfs → images.
func stages() []stage {
	return []stage{
		{name: "debian packages", run: getPackages},
		{name: "kernel", run: openKernel, files: func(s *state) []string { return []string{s.kernel.Image} }},
		{name: "go programs", run: buildPrograms, files: func(s *state) []string { return s.programFiles() }},
		{name: "root tree", run: fillRoot},
		{name: "system images", run: putImages},
		{name: "lint", run: lintRoot},
		{name: "root", key: rootKey, run: writeRoot, files: parts("root.erofs")},
		{name: "initramfs", key: initrdKey, run: writeInitrd, files: parts("initrd")},
		{name: "command line", run: writeCmdline, files: parts("cmdline")},
		{name: "kernel image", key: ukiKey, run: writeUKI, files: parts("vmlinuz", "keelson.efi")},
		{name: "esp", key: espKey, run: writeESP, files: espFiles},
		{name: "disk", key: diskKey, run: writeDisk, files: func(s *state) []string { return []string{s.config.Out} }},
		{name: "bill of materials", run: writeSBOM, files: func(s *state) []string { return []string{s.artefact(".spdx.json"), s.artefact(".cdx.json")} }},
	}
}

// state is what stages hand on.
type state struct {
	config   Config
	signer   *pkcs7.Pair // nil: nothing is signed
	memo     *memo.Memo
	source   source
	packages []input.Package
	linked   []input.Package // into programs in C
	kernel   *kernel.Kernel
	programs map[string]string
	root     tree.Tree
	rootHash string // digest of the root's tree
	verity   layout.Verity

	bill            sbom.Document
	spdx, cyclonedx []byte // the same, rendered
	cmdline         string
}

// part is a file that the build leaves beside the image.
func (s *state) part(name string) string { return filepath.Join(s.config.Dir, name) }

func parts(names ...string) func(*state) []string {
	return func(s *state) []string {
		var out []string
		for _, name := range names {
			out = append(out, s.part(name))
		}
		return out
	}
}

// result is one line of the table.
type result struct {
	name    string
	size    int64
	took    time.Duration
	skipped bool
}

func build(ctx context.Context, config Config) error {
	if _, err := machineOf(config.Arch); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	if err := deps(ctx, "build", config.Arch, false, io.Discard); err != nil {
		return err
	}
	signer, err := config.Trust.openSigner()
	if err != nil {
		return fmt.Errorf("build: %w", err)
	}
	if err := os.MkdirAll(config.Dir, 0o755); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	from, err := readSource(ctx, config)
	if err != nil {
		return err
	}
	remembered, err := memo.Load(filepath.Join(config.Dir, "memo.json"))
	if err != nil {
		return err
	}
	s := &state{config: config, signer: signer, memo: remembered, source: from}
	begin := time.Now()
	var results []result
	all := append(stages(), formatStages(config.Artefacts)...)
	all = append(all, pxeStages(config.Artefacts)...)
	all = append(all, isoStages(config.Artefacts)...)
	for _, st := range append(all, provenanceStage(all)) {
		r, err := runStage(ctx, s, st)
		if err != nil {
			// A build that fails late need not hash everything again.
			return errors.Join(fmt.Errorf("%s: %w", st.name, err), s.memo.Save())
		}
		results = append(results, r)
	}
	if err := s.memo.Store(); err != nil {
		return err
	}
	return printTable(config.Stdout, results, time.Since(begin), peakMemory())
}

func runStage(ctx context.Context, s *state, st stage) (result, error) {
	if err := ctx.Err(); err != nil {
		return result{}, err
	}
	begin := time.Now()
	key := ""
	if st.key != nil {
		made, err := st.key(s)
		if err != nil {
			return result{}, err
		}
		key = made
	}
	if key != "" {
		if was, ok := s.memo.Get("stage " + st.name); ok && was == key+sizes(st.files(s)) {
			s.config.Log.Info(st.name + ": unchanged")
			return result{name: st.name, size: total(st.files(s)), took: time.Since(begin), skipped: true}, nil
		}
	}
	s.config.Log.Info(st.name)
	// What fails half-way must not be taken for finished next time.
	s.memo.Set("stage "+st.name, "")
	if err := st.run(ctx, s); err != nil {
		return result{}, err
	}
	r := result{name: st.name, took: time.Since(begin)}
	if st.files != nil {
		r.size = total(st.files(s))
	}
	if key != "" {
		s.memo.Set("stage "+st.name, key+sizes(st.files(s)))
	}
	return r, nil
}

// sizes names the state of files: a file that was changed by another hand, or
// is gone, makes its stage run again.
func sizes(files []string) string {
	var b strings.Builder
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			return " absent"
		}
		fmt.Fprintf(&b, " %d@%d", info.Size(), info.ModTime().UnixNano())
	}
	return b.String()
}

func total(files []string) int64 {
	var sum int64
	for _, name := range files {
		if info, err := os.Stat(name); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

// peakMemory is the most that this process has held at once, in bytes; what
// compilers take is theirs.
func peakMemory() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return usage.Maxrss << 10
}

func printTable(w io.Writer, results []result, took time.Duration, memory int64) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "what\tMB\tseconds\t\t")
	for _, r := range results {
		size, note := "", ""
		if r.size > 0 {
			size = fmt.Sprintf("%.1f", float64(r.size)/1e6)
		}
		if r.skipped {
			note = "unchanged"
		}
		fmt.Fprintf(table, "%s\t%s\t%.1f\t%s\t\n", r.name, size, r.took.Seconds(), note)
	}
	fmt.Fprintf(table, "total\t\t%.1f\t\t\n", took.Seconds())
	fmt.Fprintf(table, "peak memory\t%.1f\t\t\t\n", float64(memory)/1e6)
	return table.Flush()
}

// keyOf hashes what a stage is made from.
func keyOf(inputs ...string) string {
	h := sha256.New()
	for _, in := range inputs {
		fmt.Fprintf(h, "%d %s\n", len(in), in)
	}
	return hex.EncodeToString(h.Sum(nil))
}
