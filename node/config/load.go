package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// DefaultPath is where RKE2 keeps the main file; the folder of additions is the same path with ".d".
const DefaultPath = "/etc/rancher/rke2/config.yaml"

// maxFile bounds one settings file; real ones are a few KiB.
const maxFile = 1 << 20

// Load reads path and the *.yaml and *.yml files of path.d in the order of their names, over Default. A later scalar wins; a
// later list replaces an earlier one unless its key ends with +. A file or folder that is absent is empty. The
// error is Problems where the files are wrong, and says so where they cannot be read.
func Load(path string) (Config, error) {
	all, problems, err := read(path)
	if err != nil {
		return Config{}, err
	}
	return build(all, problems)
}

// read gives what the files hold, merged, and what is wrong with how they are written.
func read(path string) ([]entry, Problems, error) {
	paths, err := files(path)
	if err != nil {
		return nil, nil, err
	}
	var all [][]entry
	var problems Problems
	for _, p := range paths {
		data, err := readFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, nil, fmt.Errorf("read settings: %w", err)
		}
		es, ps := parse(p, data)
		all = append(all, es)
		problems = append(problems, ps...)
	}
	return merge(all...), problems, nil
}

// build lays entries over Default. The error is problems with those that it finds.
func build(all []entry, problems Problems) (Config, error) {
	c := Default()
	problems = append(problems, decode(&c, all)...)
	problems = append(problems, c.readTokens()...)
	return c, problems.err()
}

// Check judges one mapping of config.yaml keys that stands inside another document, such as the rke2 section of
// user-data (without role, which is not a key of config.yaml). It tells every problem of single keys; what only
// several files together can get wrong is Resolve's.
func Check(node *yaml.Node, file string) []Problem {
	es, problems := entries(file, node)
	c := Default()
	return append(problems, decode(&c, es)...)
}

// files returns the main file and the additions, in reading order.
func files(path string) ([]string, error) {
	paths := []string{path}
	additions, err := os.ReadDir(path + ".d")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	for _, f := range additions {
		ext := strings.ToLower(filepath.Ext(f.Name()))
		if !f.IsDir() && (ext == ".yaml" || ext == ".yml") {
			paths = append(paths, filepath.Join(path+".d", f.Name()))
		}
	}
	slices.Sort(paths[1:])
	return paths, nil
}

// readFile reads a bounded file.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s is %d bytes; settings are at most %d", path, info.Size(), maxFile)
	}
	return os.ReadFile(path)
}

// readTokens replaces token-file and agent-token-file by what the files hold. The key with the value itself wins,
// as in RKE2.
func (c *Config) readTokens() Problems {
	var problems Problems
	for _, t := range []struct {
		key, path string
		into      *Secret
	}{
		{"token-file", c.tokenFile, &c.Token},
		{"agent-token-file", c.agentTokenFile, &c.AgentToken},
	} {
		if t.path == "" || *t.into != "" {
			continue
		}
		data, err := readFile(t.path)
		text := strings.TrimSpace(string(data))
		if err == nil && text == "" {
			err = fmt.Errorf("%s is empty; put the token into it", t.path)
		}
		if err == nil {
			if err = oneLine(text); err != nil {
				err = fmt.Errorf("%s %w", t.path, err)
			}
		}
		if err != nil {
			problems = append(problems, c.problem(t.key, "%v", err))
			continue
		}
		*t.into = Secret(text)
	}
	return problems
}

// problem words a mistake at the place where key was set.
func (c *Config) problem(key, format string, args ...any) Problem {
	at := c.origin[key]
	if at.file == "" {
		at.file = "settings"
	}
	return Problem{File: at.file, Line: at.line, Key: key, Message: fmt.Sprintf(format, args...)}
}
