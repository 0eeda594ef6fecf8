package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
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

// rebuilds measures the build of the raw image after an edit in init/, as make
// image does it, and leaves everything as it was. The working directory is the module's root.
func rebuilds(ctx context.Context, c Config) (took []float64, err error) {
	build := func() (time.Duration, error) {
		began := time.Now()
		cmd := exec.CommandContext(ctx, "go", "run", "./imagebuild", "build", "--artefacts", "raw", "--out", c.Image)
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("measure rebuild: %w: %s", err, out)
		}
		return time.Since(began), nil
	}
	if _, err := build(); err != nil { // whatever else is due
		return nil, err
	}
	defer func() {
		removed := os.Remove(filepath.FromSlash(editFile))
		if errors.Is(removed, os.ErrNotExist) {
			removed = nil
		}
		_, again := build()
		err = errors.Join(err, removed, again)
	}()
	for range c.Runs {
		if err := os.WriteFile(filepath.FromSlash(editFile), []byte(edit(time.Now().UnixNano())), 0o644); err != nil {
			return nil, fmt.Errorf("measure rebuild: %w", err)
		}
		d, err := build()
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(c.Log, "rebuild after an edit: %.1f s\n", d.Seconds())
		took = append(took, d.Seconds())
	}
	return took, nil
}
