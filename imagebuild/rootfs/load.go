package rootfs

import (
	"fmt"
	"io"
	"io/fs"
	"path"

	"keelson/imagebuild/tree"

	"github.com/erofs/go-erofs"
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
		e := tree.Entry{Path: path.Join("/", name), Mode: goMode(info.Mode())}
		if st, ok := info.Sys().(*erofs.Stat); ok {
			e.UID, e.GID = st.UID, st.GID
		}
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

// goMode moves setuid, setgid and sticky from where Unix has them to where Go
// has them: go-erofs 0.3.1 leaves the bits of the inode as they are.
func goMode(m fs.FileMode) fs.FileMode {
	for unix, bit := range map[fs.FileMode]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&unix != 0 {
			m = m&^unix | bit
		}
	}
	return m
}
