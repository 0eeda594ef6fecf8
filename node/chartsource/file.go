package chartsource

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// file reads a chart of the image.
func (s *Source) file(name string) ([]byte, error) {
	inside, ok := strings.CutPrefix(path.Clean(name), path.Clean(s.cfg.Dir)+"/")
	if !ok || !strings.HasSuffix(inside, ".tgz") {
		return nil, fmt.Errorf("spec.chart: %s is no file <name>.tgz beneath %s, and charts are read from nowhere else", name, s.cfg.Dir)
	}
	return beneath(s.cfg.Dir, inside)
}

// static reads a chart that RKE2's API server would serve: one that its owner put on this server, or one of the image.
func (s *Source) static(address string) ([]byte, error) {
	rest := strings.TrimPrefix(strings.TrimPrefix(address, "https://"), apiPlaceholder)
	inside, ok := strings.CutPrefix(path.Clean(rest), "/static/")
	if !ok || !strings.HasSuffix(inside, ".tgz") {
		return nil, fmt.Errorf("spec.chart: %s is not of the form https://%s/static/charts/<name>.tgz", address, apiPlaceholder)
	}
	archive, err := beneath(s.cfg.Static, inside)
	if !errors.Is(err, fs.ErrNotExist) {
		return archive, err
	}
	if name, ok := strings.CutPrefix(inside, "charts/"); ok {
		if archive, err := beneath(s.cfg.Dir, name); !errors.Is(err, fs.ErrNotExist) {
			return archive, err
		}
	}
	return nil, fmt.Errorf("spec.chart: %s is neither in %s of the server that applies charts now, nor in the image: put it there on every server", inside, s.cfg.Static)
}

// beneath reads a file that no link may lead out of its folder.
func beneath(dir, name string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("read chart: %w", err)
	}
	defer root.Close()
	file, err := root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read chart: %w", err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read chart: %s is not a regular file", file.Name())
	}
	return limited(file, maxArchive)
}

// limited reads all there is, and refuses more than a number of bytes.
func limited(from io.Reader, most int64) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(from, most+1))
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if int64(len(content)) > most {
		return nil, fmt.Errorf("has more than %d MiB, the most that is taken", most>>20)
	}
	return content, nil
}
