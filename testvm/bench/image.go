package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// sizes of the raw image, and of what is downloaded of it.
func (r *Result) sizes(ctx context.Context, c Config) error {
	info, err := os.Stat(c.Image)
	if err != nil {
		return fmt.Errorf("measure image: %w", err)
	}
	r.RawMB = float64(info.Size()) / 1e6
	if _, err := exec.LookPath("zstd"); err != nil {
		fmt.Fprintln(c.Log, "zstd is not installed: the compressed size is left out")
		return nil
	}
	fmt.Fprintln(c.Log, "compressing the image")
	cmd := exec.CommandContext(ctx, "zstd", "-19", "-T0", "-q", "-c", c.Image)
	var n counter
	cmd.Stdout = &n
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("compress image: %w", err)
	}
	r.ZstdMB = float64(n) / 1e6
	return nil
}

// counter counts what is written to it.
type counter int64

func (n *counter) Write(p []byte) (int, error) {
	*n += counter(len(p))
	return len(p), nil
}

var _ io.Writer = (*counter)(nil)

// editFile is put into init/ for a moment. Its content must change the program
// that is built, and must be another one every time, or a cache would answer.
const editFile = "init/zz_bench_edit.go"

func edit(n int64) string {
	return fmt.Sprintf(`package main

import "os"

// benchEdit is here for a moment while the rebuild is measured.
var benchEdit = func() int {
	if len(os.Args) > 1<<20 {
		os.Exit(%d)
	}
	return 0
}()
`, n%200+1) + fmt.Sprintf("\n// %d\nfunc init() { if benchEdit > 1 { println(%d) } }\n", n, n)
}

// Rebuilt is what builds after an edit in init/ took.
type Rebuilt struct {
	Raw []float64 `json:"raw_s,omitempty"` // make image
	ISO []float64 `json:"iso_s,omitempty"` // make iso
	// PeakMB is the most that imagebuild itself held at once in each of them.
	PeakMB []float64 `json:"peak_mb,omitempty"`
}

// rebuilds measures the build of the raw image and of the ISO after an edit in init/, each as make
// does it, and leaves everything as it was. The working directory is the module's root.
func rebuilds(ctx context.Context, c Config) (r Rebuilt, err error) {
	raw := []string{"--artefacts", "raw", "--out", c.Image}
	iso := []string{"--artefacts", "iso", "--definition", "configs/images/metal.yaml"}
	for _, args := range [][]string{raw, iso} { // whatever else is due
		if _, _, err := build(ctx, args); err != nil {
			return r, err
		}
	}
	defer func() {
		removed := os.Remove(filepath.FromSlash(editFile))
		if errors.Is(removed, os.ErrNotExist) {
			removed = nil
		}
		_, _, again := build(ctx, raw)
		_, _, both := build(ctx, iso)
		err = errors.Join(err, removed, again, both)
	}()
	for range c.Runs {
		for _, one := range []struct {
			name string
			args []string
			took *[]float64
		}{{"raw image", raw, &r.Raw}, {"ISO", iso, &r.ISO}} {
			if err := os.WriteFile(filepath.FromSlash(editFile), []byte(edit(time.Now().UnixNano())), 0o644); err != nil {
				return r, fmt.Errorf("measure rebuild: %w", err)
			}
			took, peak, err := build(ctx, one.args)
			if err != nil {
				return r, err
			}
			fmt.Fprintf(c.Log, "rebuild of the %s after an edit: %.1f s, %.0f MB\n", one.name, took.Seconds(), peak)
			*one.took, r.PeakMB = append(*one.took, took.Seconds()), append(r.PeakMB, peak)
		}
	}
	return r, nil
}

// build makes artefacts, and tells how long it took and what imagebuild says of its memory.
func build(ctx context.Context, args []string) (took time.Duration, peak float64, err error) {
	began := time.Now()
	out, err := exec.CommandContext(ctx, "go", append([]string{"run", "./imagebuild", "build"}, args...)...).CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("measure rebuild: %w: %s", err, out)
	}
	took = time.Since(began)
	peak, err = peakMemory(string(out))
	return took, peak, err
}

// peakMemory reads the line "peak memory" of the table that a build ends with; megabytes.
func peakMemory(out string) (float64, error) {
	for line := range strings.Lines(out) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "peak memory"); ok {
			mb, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				return 0, fmt.Errorf("peak memory of a build: %w", err)
			}
			return mb, nil
		}
	}
	return 0, fmt.Errorf("peak memory of a build: no such line in %q", out)
}
