package erofs

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"keelson/imagebuild/tree"

	"github.com/erofs/go-erofs"
)

// source shows a tree as the fs.FS that go-erofs copies from. The library
// takes owners, link counts and device numbers from FileInfo.Sys when that is
// its own Stat, link targets from ReadLink, and opens every file before it
// reads the first: files therefore open themselves at the first Read.
type source struct {
	nodes map[string]*node // by fs.FS name: "." is the root
	err   error            // the first file that did not have the size it said
}

func newSource(entries []tree.Entry, t time.Time) *source {
	s := &source{nodes: make(map[string]*node, len(entries))}
	for _, e := range entries {
		n := &node{Entry: e, time: t}
		s.nodes[fsName(e.Path)] = n
		if e.Path == "/" {
			continue
		}
		parent := s.nodes[fsName(path.Dir(e.Path))]
		parent.children = append(parent.children, n)
		if e.Mode.IsDir() {
			parent.subdirs++
		}
	}
	return s
}

func fsName(p string) string {
	if p == "/" {
		return "."
	}
	return strings.TrimPrefix(p, "/")
}

func (s *source) find(op, name string) (*node, error) {
	if n, ok := s.nodes[name]; ok {
		return n, nil
	}
	return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// Open implements fs.FS.
func (s *source) Open(name string) (fs.File, error) {
	n, err := s.find("open", name)
	if err != nil {
		return nil, err
	}
	return &file{node: n, source: s}, nil
}

// Stat implements fs.StatFS.
func (s *source) Stat(name string) (fs.FileInfo, error) { return s.find("stat", name) }

// ReadDir implements fs.ReadDirFS. The children are in order already.
func (s *source) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := s.find("readdir", name)
	if err != nil {
		return nil, err
	}
	out := make([]fs.DirEntry, len(n.children))
	for i, c := range n.children {
		out[i] = fs.FileInfoToDirEntry(c)
	}
	return out, nil
}

// ReadLink is what go-erofs asks for link targets.
func (s *source) ReadLink(name string) (string, error) {
	n, err := s.find("readlink", name)
	if err != nil {
		return "", err
	}
	return n.Target, nil
}

// node is one entry as fs.FileInfo.
type node struct {
	tree.Entry
	time     time.Time
	children []*node
	subdirs  int
}

func (n *node) Name() string       { return path.Base(n.Path) }
func (n *node) Size() int64        { return n.Entry.Size }
func (n *node) Mode() fs.FileMode  { return n.Entry.Mode }
func (n *node) ModTime() time.Time { return n.time }
func (n *node) IsDir() bool        { return n.Entry.Mode.IsDir() }

// Sys carries what FileInfo has no method for.
func (n *node) Sys() any {
	links := 1
	if n.IsDir() {
		links = 2 + n.subdirs
	}
	return &erofs.Stat{
		Mode: n.Entry.Mode, Size: n.Entry.Size, UID: n.UID, GID: n.GID,
		Mtime: uint64(n.time.Unix()), Nlink: links, Rdev: rdev(n.Major, n.Minor),
	}
}

// rdev is Linux's new_encode_dev (include/linux/kdev_t.h), which EROFS stores.
func rdev(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | (minor&^0xff)<<12
}

// file reads one entry and opens it when it is first read.
type file struct {
	*node
	source *source
	r      io.ReadCloser
	read   int64
}

func (f *file) Stat() (fs.FileInfo, error) { return f.node, nil }

func (f *file) Read(p []byte) (int, error) {
	if f.r == nil {
		if f.node.Entry.Open == nil {
			return 0, io.EOF
		}
		r, err := f.node.Entry.Open()
		if err != nil {
			return 0, err
		}
		f.r = r
	}
	n, err := f.r.Read(p)
	f.read += int64(n)
	return n, err
}

// Close ends the file. A file that is longer than its entry says was cut by
// the library without a word, so one more byte is asked for here.
func (f *file) Close() error {
	if f.r == nil {
		return nil
	}
	n, _ := io.CopyN(io.Discard, f.r, 1)
	if f.read += n; f.read != f.node.Entry.Size && f.source.err == nil {
		f.source.err = fmt.Errorf("%s: size changed while it was read: want %d bytes", f.Path, f.node.Entry.Size)
	}
	err := f.r.Close()
	f.r = nil
	return err
}
