package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"runtime"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func start(t *testing.T) *Registry {
	t.Helper()
	r, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// pull is what a container runtime does.
func pull(t *testing.T, r *Registry, repositoryTag string) v1.Image {
	t.Helper()
	ref, err := name.ParseReference(fmt.Sprintf("127.0.0.1:%d/%s", r.Port(), repositoryTag), name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	image, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// files of an image's layers.
func files(t *testing.T, image v1.Image) map[string][]byte {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]byte{}
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for in := tar.NewReader(r); ; {
			h, err := in.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Mode != 0o755 {
				t.Errorf("%s: got mode %o, want 755", h.Name, h.Mode)
			}
			if found[h.Name], err = io.ReadAll(in); err != nil {
				t.Fatal(err)
			}
		}
	}
	return found
}

func TestPushAndPull(t *testing.T) {
	r := start(t)
	image, err := FromProgram("tool", []byte("program"), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Push(context.Background(), image, "library/tool:1"); err != nil {
		t.Fatal(err)
	}
	if r.Pulled("library/tool") {
		t.Error("pulled: got true before anybody pulled")
	}
	got := pull(t, r, "library/tool:1")
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	config, err := got.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.OS != "linux" || config.Architecture != "amd64" || fmt.Sprint(config.Config.Entrypoint) != "[/tool]" {
		t.Errorf("config: got %s/%s, %v", config.OS, config.Architecture, config.Config.Entrypoint)
	}
	if content := files(t, got); len(content) != 1 || string(content["tool"]) != "program" {
		t.Errorf("files: got %q, want the program alone", content)
	}
	if !r.Pulled("library/tool") || r.Pulled("library/other") {
		t.Errorf("pulled: wrong answer after %v", r.Requests())
	}
}

func TestPushRefuses(t *testing.T) {
	r := start(t)
	image, err := FromProgram("tool", nil, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Push(context.Background(), image, "Not A Name"); err == nil {
		t.Error("a name that is none: got no error")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Push(ctx, image, "a:1"); err == nil {
		t.Error("a context that has ended: got no error")
	}
}

func TestWorkloadIsStatic(t *testing.T) {
	image, err := Workload(context.Background(), runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	program := files(t, image)["workload"]
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program names a loader: it would not start in an image of its own")
		}
	}
	if _, err := Workload(context.Background(), "no-such-cpu"); err == nil {
		t.Error("an unknown architecture: got no error")
	}
}
