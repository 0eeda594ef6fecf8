// Package cpio writes an initramfs: a newc archive, compressed with zstd,
// byte for byte the same for the same tree.
//
// The archive comes from u-root's newc writer, the compression from
// klauspost's encoder; this package fixes what would differ from build to
// build (times, inode numbers, devices) and orders the entries so that the
// kernel finds a directory before what is in it. Its input is a tree.Tree,
// its reader is the kernel (Documentation/driver-api/early-userspace/
// buffer-format.rst).
package cpio

import (
	"fmt"
	"io"
	"io/fs"
	"os"

	"keelson/imagebuild/tree"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
)

// window is the zstd window. The kernel's decompressor takes up to 8 MiB
// (lib/decompress_unzstd.c, ZSTD_WINDOWSIZE_MAX) and has to allocate it.
const window = 8 << 20

// WriteZstd writes t to w, compressed.
func WriteZstd(w io.Writer, t *tree.Tree) error {
	// The encoder splits its work by input, not by time, so the output does
	// not depend on how many cores there are. One checksum guards the whole.
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBetterCompression),
		zstd.WithWindowSize(window), zstd.WithEncoderCRC(true))
	if err != nil {
		return fmt.Errorf("cpio: zstd: %w", err)
	}
	if err := Write(z, t); err != nil {
		z.Close()
		return err
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("cpio: zstd: %w", err)
	}
	return nil
}

// Write writes t to w as it is.
func Write(w io.Writer, t *tree.Tree) error {
	entries, err := t.Entries()
	if err != nil {
		return fmt.Errorf("cpio: %w", err)
	}
	out := cpio.Newc.Writer(w)
	for i, e := range entries {
		if e.Path == "/" {
			continue // the kernel's rootfs is there already
		}
		if err := writeEntry(out, e, uint64(i)); err != nil {
			return fmt.Errorf("cpio: %s: %w", e.Path, err)
		}
	}
	if err := cpio.WriteTrailer(out); err != nil {
		return fmt.Errorf("cpio: %w", err)
	}
	return nil
}

func writeEntry(out cpio.RecordWriter, e tree.Entry, ino uint64) error {
	rec := cpio.Record{Info: cpio.Info{
		Name: e.Path[1:], Ino: ino, Mode: mode(e.Mode), UID: uint64(e.UID), GID: uint64(e.GID), NLink: 1,
	}}
	switch e.Mode.Type() {
	case fs.ModeSymlink:
		rec = cpio.StaticRecord([]byte(e.Target), rec.Info)
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		rec.Rmajor, rec.Rminor = uint64(e.Major), uint64(e.Minor)
	case fs.ModeDir:
		rec.NLink = 2
	case 0:
		if e.Size == 0 {
			break
		}
		return writeFile(out, e, rec.Info)
	}
	return out.WriteRecord(rec)
}

// large files are not held in memory.
const large = 16 << 20

// writeFile writes a regular file. u-root wants an io.ReaderAt.
func writeFile(out cpio.RecordWriter, e tree.Entry, info cpio.Info) error {
	r, err := e.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if f, ok := r.(*os.File); ok && e.Size > large {
		now, err := f.Stat()
		if err != nil {
			return err
		}
		if now.Size() != e.Size {
			return fmt.Errorf("size changed: %d bytes, want %d", now.Size(), e.Size)
		}
		info.FileSize = uint64(e.Size)
		return out.WriteRecord(cpio.Record{ReaderAt: f, Info: info})
	}
	b, err := io.ReadAll(io.LimitReader(r, e.Size+1))
	if err != nil {
		return err
	}
	if int64(len(b)) != e.Size {
		return fmt.Errorf("size changed while it was read: want %d bytes", e.Size)
	}
	return out.WriteRecord(cpio.StaticRecord(b, info))
}

// mode is m as inode(7) has it, which is what newc stores.
func mode(m fs.FileMode) uint64 {
	out := uint64(m.Perm())
	switch m.Type() {
	case fs.ModeDir:
		out |= cpio.S_IFDIR
	case fs.ModeSymlink:
		out |= cpio.S_IFLNK
	case fs.ModeDevice:
		out |= cpio.S_IFBLK
	case fs.ModeDevice | fs.ModeCharDevice:
		out |= cpio.S_IFCHR
	default:
		out |= cpio.S_IFREG
	}
	for bit, unix := range map[fs.FileMode]uint64{fs.ModeSetuid: cpio.S_ISUID, fs.ModeSetgid: cpio.S_ISGID, fs.ModeSticky: cpio.S_ISVTX} {
		if m&bit != 0 {
			out |= unix
		}
	}
	return out
}
