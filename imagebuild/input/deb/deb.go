// Package deb unpacks Debian binary packages in pure Go: the ar container, then the data member (xz, zstd, gzip or plain tar).
// Format: deb(5). It runs no maintainer script, sets no owner and creates no device; what it writes below a folder is plain
// data. Package input feeds it with files whose hash is checked; packages kernel and rootfs read the trees it leaves.
package deb

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

const arMagic = "!<arch>\n"

// Data returns the tar stream of the package's files.
func Data(r io.Reader) (io.Reader, error) {
	in := bufio.NewReaderSize(r, 1<<20)
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != arMagic {
		return nil, errors.New("read package: no ar archive")
	}
	for {
		name, size, err := arHeader(in)
		if err != nil {
			return nil, err
		}
		if suffix, ok := strings.CutPrefix(name, "data.tar"); ok {
			return decompress(suffix, &whole{in: in, left: size})
		}
		if _, err := io.CopyN(io.Discard, in, size+size%2); err != nil {
			return nil, fmt.Errorf("skip member %s: %w", name, err)
		}
	}
}

// arHeader reads the 60 byte header of one member (ar(5): name 16, date 12, uid 6, gid 6, mode 8, size 10, end 2).
func arHeader(in io.Reader) (name string, size int64, err error) {
	var header [60]byte
	if _, err := io.ReadFull(in, header[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return "", 0, errors.New("read package: no data.tar member")
		}
		return "", 0, fmt.Errorf("read ar header: %w", err)
	}
	if !bytes.Equal(header[58:], []byte("`\n")) {
		return "", 0, errors.New("read ar header: end mark is absent")
	}
	size, err = strconv.ParseInt(strings.TrimSpace(string(header[48:58])), 10, 64)
	if err != nil || size < 0 {
		return "", 0, fmt.Errorf("read ar header: size %q is no size", header[48:58])
	}
	return strings.TrimSuffix(strings.TrimRight(string(header[:16]), " "), "/"), size, nil
}

// whole reads one member and, unlike io.LimitReader, does not take the end of
// a file that was cut for the end of the member.
type whole struct {
	in   io.Reader
	left int64
}

func (w *whole) Read(p []byte) (int, error) {
	if w.left == 0 {
		return 0, io.EOF
	}
	n, err := w.in.Read(p[:min(int64(len(p)), w.left)])
	w.left -= int64(n)
	if errors.Is(err, io.EOF) && w.left > 0 {
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

func decompress(suffix string, in io.Reader) (io.Reader, error) {
	switch suffix {
	case "":
		return in, nil
	case ".xz":
		return xz.NewReader(bufio.NewReaderSize(in, 1<<20))
	case ".gz":
		return gzip.NewReader(in)
	case ".zst":
		out, err := zstd.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("read zstd: %w", err)
		}
		return out.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("read package: compression %q of data.tar is not known", suffix)
}

// Unpack writes the files of the package below dir, which must not exist yet. It appears whole or not at all.
func Unpack(r io.Reader, dir string) error {
	data, err := Data(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make folder for package: %w", err)
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".unpack-")
	if err != nil {
		return fmt.Errorf("make folder for package: %w", err)
	}
	defer os.RemoveAll(temp)
	if err := unpackTar(data, temp); err != nil {
		return err
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return fmt.Errorf("open up %s: %w", temp, err)
	}
	if err := os.Rename(temp, dir); err != nil {
		return fmt.Errorf("put package in place: %w", err)
	}
	return nil
}

func unpackTar(data io.Reader, dir string) error {
	// os.Root refuses names and links that lead out of dir.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open folder for package: %w", err)
	}
	defer root.Close()
	in := tar.NewReader(data)
	buffer := make([]byte, 1<<20)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read package tar: %w", err)
		}
		name := path.Clean(strings.TrimPrefix(h.Name, "./"))
		if name == "." {
			continue
		}
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
		if err := unpackOne(root, name, h, in, buffer); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
	}
}

func unpackOne(root *os.Root, name string, h *tar.Header, in io.Reader, buffer []byte) error {
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return root.Link(path.Clean(strings.TrimPrefix(h.Linkname, "./")), name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		// The plain io.Writer keeps io.CopyBuffer from falling back to small pieces.
		_, err = io.CopyBuffer(struct{ io.Writer }{f}, in, buffer)
		if err == nil {
			err = f.Chmod(h.FileInfo().Mode())
		}
		return errors.Join(err, f.Close())
	}
	return fmt.Errorf("entry of type %q is not for a package of files", h.Typeflag)
}
