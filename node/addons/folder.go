package addons

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func read(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSize {
		return nil, fmt.Errorf("%s: has %d bytes; the most is %d", file, info.Size(), maxSize)
	}
	return os.ReadFile(file)
}

// list finds the manifests below the folder by the names of their add-ons, and watches every folder it sees. Links to
// folders are followed at the top only; a file is left out by a file beside it with .skip after its name.
func (c *Controller) list() (map[string]string, error) {
	files := map[string]string{}
	var walk func(dir string, top bool) error
	walk = func(dir string, top bool) error {
		if err := c.watcher.Add(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("list manifests: %w", err)
		}
		names := map[string]bool{}
		for _, e := range entries {
			names[e.Name()] = true
		}
		for _, e := range entries {
			name := filepath.Join(dir, e.Name())
			if strings.HasPrefix(e.Name(), ".") {
				continue
			}
			info, err := os.Stat(name)
			if err != nil {
				continue // gone, or a dangling link
			}
			if info.IsDir() {
				if top || e.IsDir() {
					if err := walk(name, false); err != nil {
						return err
					}
				}
				continue
			}
			if !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)) || names[e.Name()+".skip"] || !info.Mode().IsRegular() {
				continue
			}
			// RKE2's name of an add-on ends at the first dot.
			addon, _, _ := strings.Cut(e.Name(), ".")
			if other, taken := files[addon]; taken {
				c.cfg.Log.Warn("two manifests have one name; the second is left out", "addon", addon, "used", other, "ignored", name)
				continue
			}
			files[addon] = name
		}
		return nil
	}
	return files, walk(c.cfg.Dir, true)
}

// linked tells whether a file is seen through a symbolic link to a folder.
func (c *Controller) linked(file string) bool {
	real, err := filepath.EvalSymlinks(filepath.Dir(file))
	if err != nil {
		return true
	}
	base, err := filepath.EvalSymlinks(c.cfg.Dir)
	return err != nil || (real != base && !strings.HasPrefix(real, base+"/"))
}
