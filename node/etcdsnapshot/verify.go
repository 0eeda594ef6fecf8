package etcdsnapshot

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"golang.org/x/sys/unix"
)

// ErrDamaged is a file that does not hold what etcd sent.
var ErrDamaged = errors.New("damaged snapshot")

// Info is what a sound snapshot says of itself.
type Info struct {
	Size     int64 // with the trailer
	Revision int64 // of the newest change in it
	Version  string
}

// Verify reads a snapshot from the disk and checks it: etcd's trailer (a SHA-256 of all before it: client/v3/snapshot)
// and the pages of the database. It needs memory for the set of pages, not for the data.
func Verify(path string) (Info, error) {
	size, err := checkTrailer(path)
	if err != nil {
		return Info{}, fmt.Errorf("verify %s: %w", path, err)
	}
	info, err := checkDatabase(path)
	if err != nil {
		return Info{}, fmt.Errorf("verify %s: %w", path, err)
	}
	info.Size = size
	return info, nil
}

func checkTrailer(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	// What is still in memory would be compared with itself: have the bytes come from the disk.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	stat, err := f.Stat()
	if err != nil {
		return 0, err
	}
	// Pages are multiples of 512 bytes, the trailer comes on top.
	if stat.Size()%512 != sha256.Size {
		return 0, fmt.Errorf("%w: %d bytes, which is no database with a checksum; it was cut off, or copied from a data folder", ErrDamaged, stat.Size())
	}
	h := sha256.New()
	if _, err := io.CopyN(h, f, stat.Size()-sha256.Size); err != nil {
		return 0, err
	}
	trailer := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, trailer); err != nil {
		return 0, err
	}
	if !bytes.Equal(trailer, h.Sum(nil)) {
		return 0, fmt.Errorf("%w: its bytes do not have the checksum that etcd gave them", ErrDamaged)
	}
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	return stat.Size(), nil
}

// checkDatabase comes after the trailer's check: bbolt trusts what it maps.
func checkDatabase(path string) (Info, error) {
	db, err := bolt.Open(path, 0o400, &bolt.Options{ReadOnly: true})
	if err != nil {
		return Info{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer db.Close()
	var info Info
	err = db.View(func(tx *bolt.Tx) error {
		var first error
		for err := range tx.Check() { // to its end: a goroutine waits for the reader
			if first == nil {
				first = err
			}
		}
		if first != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, first)
		}
		keys := tx.Bucket(schema.Key.Name())
		if keys == nil {
			return fmt.Errorf("%w: no database of etcd: it has no keys", ErrDamaged)
		}
		if last, _ := keys.Cursor().Last(); len(last) >= 17 { // revisions: 8 bytes, _, 8 bytes, and t for a deletion
			info.Revision = mvcc.BytesToRev(last).Main
		}
		if v := schema.ReadStorageVersionFromSnapshot(tx); v != nil {
			info.Version = v.String()
		}
		return nil
	})
	return info, err
}

// compress writes path's content as the one entry of a zip file at target, and reads that back.
func compress(path, target, entry string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	z := zip.NewWriter(out)
	h := sha256.New()
	w, err := z.CreateHeader(&zip.FileHeader{Name: entry, Method: zip.Deflate})
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.MultiWriter(w, h), in); err != nil {
		return err
	}
	if err := errors.Join(z.Close(), out.Sync()); err != nil {
		return err
	}
	_ = unix.Fadvise(int(out.Fd()), 0, 0, unix.FADV_DONTNEED)
	back := sha256.New()
	if err := unzip(target, back); err != nil {
		return err
	}
	if !bytes.Equal(back.Sum(nil), h.Sum(nil)) {
		return fmt.Errorf("%s: %w: it does not unpack to what was packed", target, ErrDamaged)
	}
	return nil
}

func unzip(path string, to io.Writer) error {
	z, err := zip.OpenReader(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer z.Close()
	if len(z.File) != 1 {
		return fmt.Errorf("%w: the zip file has %d entries, a snapshot has one", ErrDamaged, len(z.File))
	}
	r, err := z.File[0].Open()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer r.Close()
	if _, err := io.Copy(to, r); err != nil { // ends with the entry's size and CRC checked
		return fmt.Errorf("unpack: %w", err)
	}
	return nil
}

// Unpack puts a snapshot, zipped or not, at target as a plain verified one, on the disk.
func Unpack(path, target string) (info Info, err error) {
	out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return Info{}, fmt.Errorf("unpack snapshot: %w", err)
	}
	if IsZip(path) {
		err = unzip(path, out)
	} else {
		err = copyFile(out, path)
	}
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		return Info{}, fmt.Errorf("unpack snapshot %s: %w", path, err)
	}
	return Verify(target)
}

// IsZip tells by the first bytes: users rename files.
func IsZip(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var magic [4]byte
	_, err = io.ReadFull(f, magic[:])
	return err == nil && string(magic[:]) == "PK\x03\x04"
}

func copyFile(to io.Writer, path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = io.Copy(to, in)
	return err
}
