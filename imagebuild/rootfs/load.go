package rootfs

import (
	"fmt"
	"io"
	"io/fs"
	"path"

	"keelson/imagebuild/tree"
)

// Load reads a file system, a directory or an opened image, into a tree, so
// that it can be checked.
func Load(fsys fs.FS) (*tree.Tree, error) {
	var t tree.Tree
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := tree.Entry{Path: path.Join("/", name), Mode: info.Mode()}
		switch info.Mode().Type() {
		case 0:
			e.Size = info.Size()
			e.Open = func() (io.ReadCloser, error) { return fsys.Open(name) }
		case fs.ModeSymlink:
			if e.Target, err = fs.ReadLink(fsys, name); err != nil {
				return err
			}
		}
		return t.Add(e)
	})
	if err != nil {
		return nil, fmt.Errorf("load root: %w", err)
	}
	return &t, nil
}
