package conformance

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"keelson/testvm/registry"
)

// recipe says how an image of the suite is made. Which tags there are, the suite itself tells.
type recipe struct {
	repository string // without a host, as the suite names it
	bare       bool   // without Debian's files
	programs   []string
	entrypoint []string
	command    []string
	user       string
}

// recipes is what can be made here; specs that want another image fail for want of it.
// What each image is expected to do is in k8s.io/kubernetes/test/images.
func recipes() []recipe {
	return []recipe{
		{repository: "e2e-test-images/agnhost", programs: []string{"agnhost", "coredns"}, entrypoint: []string{"/agnhost"}, command: []string{"pause"}},
		{repository: "e2e-test-images/busybox", command: []string{"sh"}},
		{repository: "e2e-test-images/glibc-dns-testing", programs: []string{"coredns"}, command: []string{"sh"}},
		{repository: "e2e-test-images/nginx", command: []string{"nginx", "-g", "daemon off;"}},
		{repository: "e2e-test-images/nonewprivs", programs: []string{"nonewprivs"}, entrypoint: []string{"/nonewprivs"}},
		{repository: "e2e-test-images/nonroot", command: []string{"sh"}, user: "1234"},
		{repository: "e2e-test-images/resource-consumer", programs: []string{"resource-consumer"}, entrypoint: []string{"/resource-consumer"}},
		{repository: "e2e-test-images/sample-apiserver", programs: []string{"kube-sample-apiserver"}, entrypoint: []string{"/kube-sample-apiserver"}},
		{repository: "etcd", programs: []string{"etcd"}, command: []string{"/etcd"}},
		{repository: "pause", bare: true, programs: []string{"pause"}, entrypoint: []string{"/pause"}},
	}
}

// Images lists what the suite may ask for, as "registry.k8s.io/pause:3.10".
func (s *Suite) Images(ctx context.Context) ([]string, error) {
	out, err := s.ask(ctx, "--list-images")
	if err != nil {
		return nil, fmt.Errorf("list images of the suite: %w", err)
	}
	var images []string
	for _, line := range strings.Fields(out) {
		if strings.Contains(line, "/") && strings.Contains(line, ":") {
			images = append(images, line)
		}
	}
	return images, nil
}

// Push makes every image that can be made and puts it into the registry, under its name without the host. It returns the
// names of those that cannot.
func (s *Suite) Push(ctx context.Context, to *registry.Registry) (missing []string, err error) {
	images, err := s.Images(ctx)
	if err != nil {
		return nil, err
	}
	debian, err := s.layer("root.tar", func(w *tar.Writer) error { return pack(w, s.path("root")) })
	if err != nil {
		return nil, err
	}
	for _, image := range images {
		r, ok := recipeOf(image)
		if !ok {
			missing = append(missing, image)
			continue
		}
		made, err := s.image(r, debian)
		if err != nil {
			return nil, fmt.Errorf("make %s: %w", image, err)
		}
		_, name, _ := strings.Cut(image, "/")
		if err := to.Push(ctx, made, name); err != nil {
			return nil, err
		}
	}
	return missing, nil
}

func recipeOf(image string) (recipe, bool) {
	for _, r := range recipes() {
		if strings.HasPrefix(image, "registry.k8s.io/"+r.repository+":") {
			return r, true
		}
	}
	return recipe{}, false
}

func (s *Suite) image(r recipe, debian v1.Layer) (v1.Image, error) {
	own, err := s.layer(strings.ReplaceAll(r.repository, "/", "-")+".tar", func(w *tar.Writer) error {
		for _, name := range r.programs {
			if err := add(w, s.path(name), name); err != nil {
				return err
			}
		}
		if r.bare {
			return nil
		}
		// Debian's own sh drops variables like data-1, which specs hand to "sh -c env".
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "usr/bin/sh", Linkname: "bash", Mode: 0o777}); err != nil {
			return err
		}
		if r.repository != "e2e-test-images/agnhost" {
			return nil
		}
		for _, name := range served() {
			if err := add(w, s.path(name), name); err != nil {
				return err
			}
		}
		// A spec starts the image by this name to see that a pod's command rules.
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "agnhost-2", Linkname: "agnhost", Mode: 0o777})
	})
	if err != nil {
		return nil, err
	}
	layers := []v1.Layer{debian, own}
	if r.bare {
		layers = layers[1:]
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.AppendLayers(image, layers...); err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{
		Entrypoint: r.entrypoint, Cmd: r.command, User: r.user,
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/"},
	}
	return mutate.ConfigFile(image, config)
}

// layer keeps a tar archive in the suite's folder and makes a layer of it, uncompressed on the wire of the loopback.
func (s *Suite) layer(name string, fill func(*tar.Writer) error) (v1.Layer, error) {
	file, err := os.Create(s.path(name))
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(file)
	if err := errors.Join(fill(w), w.Close(), file.Close()); err != nil {
		return nil, fmt.Errorf("pack %s: %w", name, err)
	}
	return tarball.LayerFromFile(s.path(name), tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(1))
}

// add puts one program into the archive.
func add(w *tar.Writer, path, name string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(w, in)
	return err
}

// pack puts a root's files into the archive, with their owners, without devices.
func pack(w *tar.Writer, root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode()&(fs.ModeDevice|fs.ModeSocket|fs.ModeNamedPipe) != 0 {
			return nil
		}
		var link string
		if info.Mode()&fs.ModeSymlink != 0 {
			if link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		header, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		if header.Name, err = filepath.Rel(root, path); err != nil {
			return err
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); ok {
			header.Uid, header.Gid, header.Uname, header.Gname = int(owner.Uid), int(owner.Gid), "", ""
		}
		if err := w.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
			return err
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = io.Copy(w, in)
		return err
	})
}
