package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Workload builds keelson/testvm/workload for an architecture as Go names it
// and makes an image of that one file. It needs the go command and to run
// inside the module.
func Workload(ctx context.Context, arch string) (v1.Image, error) {
	dir, err := os.MkdirTemp("", "keelson-workload-")
	if err != nil {
		return nil, fmt.Errorf("build workload: %w", err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "workload")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "keelson/testvm/workload")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build workload: %w: %s", err, out)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("build workload: %w", err)
	}
	return FromProgram("workload", data, arch)
}

// FromProgram makes an image whose only file, and entry point, is a static
// program.
func FromProgram(name string, program []byte, arch string) (v1.Image, error) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(program))}
	if err := w.WriteHeader(header); err != nil {
		return nil, fmt.Errorf("make image of %s: %w", name, err)
	}
	if _, err := w.Write(program); err != nil {
		return nil, fmt.Errorf("make image of %s: %w", name, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("make image of %s: %w", name, err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layer.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("make image of %s: %w", name, err)
	}
	image, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), l)
	if err != nil {
		return nil, fmt.Errorf("make image of %s: %w", name, err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("make image of %s: %w", name, err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	config.Config.Entrypoint = []string{"/" + name}
	config.Config.Env = []string{"PATH=/"}
	image, err = mutate.ConfigFile(image, config)
	if err != nil {
		return nil, fmt.Errorf("make image of %s: %w", name, err)
	}
	return image, nil
}
