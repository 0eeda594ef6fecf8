package oci

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxIndex bounds what is read of an archive's table of contents.
const maxIndex = 4 << 20

// Names lists the images of an archive, an OCI layout or what `docker save`
// writes, as a tar. Images without a full name could not be asked for by a
// pod: an archive that has none is refused.
func Names(r io.Reader) ([]string, error) {
	var names []string
	bare := ""
	found := false
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read archive: %w: want a tar that is not compressed", err)
		}
		name := path.Clean(h.Name)
		if h.Typeflag != tar.TypeReg || name != "index.json" && name != "manifest.json" {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(in, maxIndex+1))
		if err != nil {
			return nil, fmt.Errorf("read archive: %s: %w", name, err)
		}
		if len(text) > maxIndex {
			return nil, fmt.Errorf("read archive: %s has more than %d bytes", name, maxIndex)
		}
		found = true
		parse := ociNames
		if name == "manifest.json" {
			parse = dockerNames
		}
		more, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("read archive: %s: %w", name, err)
		}
		for _, n := range more {
			if repository, tag, ok := cutTag(n); ok && repository != "" && tag != "" {
				names = append(names, n)
			} else {
				bare = n
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	switch {
	case !found:
		return nil, errors.New("read archive: neither index.json nor manifest.json is in it: want an OCI or docker archive")
	case len(names) == 0 && bare != "":
		return nil, fmt.Errorf("read archive: the image is called %q: want a full name, such as registry.example/app:1", bare)
	case len(names) == 0:
		return nil, errors.New("read archive: no image in it has a name")
	}
	return names, nil
}

// cutTag splits "registry/app:1".
func cutTag(name string) (repository, tag string, ok bool) {
	slash := strings.LastIndexByte(name, '/')
	colon := strings.LastIndexByte(name, ':')
	if slash <= 0 || colon < slash || strings.ContainsAny(name, " \t\n") {
		return "", "", false
	}
	return name[:colon], name[colon+1:], true
}

func ociNames(text []byte) ([]string, error) {
	var index ocispec.Index
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, err
	}
	var out []string
	for _, m := range index.Manifests {
		name := m.Annotations[AnnotationName]
		if name == "" {
			name = m.Annotations[ocispec.AnnotationRefName]
		}
		if name != "" {
			out = append(out, name)
		}
	}
	return out, nil
}

func dockerNames(text []byte) ([]string, error) {
	var images []struct{ RepoTags []string }
	if err := json.Unmarshal(text, &images); err != nil {
		return nil, err
	}
	var out []string
	for _, i := range images {
		out = append(out, i.RepoTags...)
	}
	return out, nil
}
