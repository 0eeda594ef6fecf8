// Package qcow2 writes a raw disk image as QEMU's qcow2, version 3, with
// compressed clusters: what OpenStack, Proxmox and libvirt take. Clusters of
// zeros are not stored, and equal images give equal bytes. It reads no qcow2.
//
// Format: QEMU, docs/interop/qcow2.txt.
package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"keelson/imagebuild/cloud/inorder"
	"keelson/imagebuild/cloud/sparse"

	"github.com/klauspost/compress/flate"
)

const (
	magic        = 0x514649fb // "QFI\xfb"
	clusterBits  = 16
	cluster      = 1 << clusterBits
	l2Entries    = cluster / 8
	refOrder     = 4 // 16 bits for each count
	refsPerBlock = cluster / 2
	headerLen    = 104

	flagCopied     = 1 << 63 // the one reference
	flagCompressed = 1 << 62
	// In an entry of a compressed cluster the offset takes the bits below
	// this one, the count of further sectors those from it.
	sectorShift = 62 - (clusterBits - 8)
	sector      = 512

	// QEMU inflates with a window of 4 KiB (block/qcow2-threads.c).
	window = 4096
)

// Write writes the size bytes of raw to w.
func Write(ctx context.Context, w io.WriterAt, raw io.ReaderAt, size int64) error {
	if size <= 0 || size%sector != 0 {
		return fmt.Errorf("qcow2: size %d of the disk is no positive multiple of %d", size, sector)
	}
	clusters := (size + cluster - 1) / cluster
	tables := (clusters + l2Entries - 1) / l2Entries
	if tables > l2Entries {
		return fmt.Errorf("qcow2: a disk of %d bytes is larger than this writer's one cluster of level 1 describes", size)
	}
	// Header, level 1, level 2, then the data, then who refers to what.
	f := file{w: w, l2: make([]uint64, clusters), at: (2 + tables) * cluster}
	f.counts = make([]uint16, 2+tables)
	for i := range f.counts {
		f.counts[i] = 1
	}
	if err := sparse.Compress(ctx, raw, size, cluster, deflater, f.put); err != nil {
		return fmt.Errorf("qcow2: %w", err)
	}
	if err := f.finish(size, tables); err != nil {
		return fmt.Errorf("qcow2: %w", err)
	}
	return nil
}

// deflater makes a worker that returns a cluster compressed, or as it is where
// that is no gain.
func deflater() (func([]byte) ([]byte, error), error) {
	z, err := flate.NewWriterWindow(io.Discard, window)
	if err != nil {
		return nil, err
	}
	pack := inorder.Pack(z, z.Close)
	return func(b []byte) ([]byte, error) {
		packed, err := pack(b)
		if err == nil && len(packed) >= len(b)-sector {
			return b, nil
		}
		return packed, err
	}, nil
}

// file is what has been written of one.
type file struct {
	w      io.WriterAt
	at     int64    // where the next data goes
	l2     []uint64 // one entry a cluster of the guest
	counts []uint16 // references to each cluster of the file
}

func (f *file) put(b sparse.Block) error {
	if len(b.Data) == cluster {
		f.at = (f.at + cluster - 1) / cluster * cluster
		f.l2[b.Index] = flagCopied | uint64(f.at)
	} else {
		// Sectors behind the one in which it begins.
		more := (f.at+int64(len(b.Data))-1)/sector - f.at/sector
		f.l2[b.Index] = flagCompressed | uint64(more)<<sectorShift | uint64(f.at)
	}
	if _, err := f.w.WriteAt(b.Data, f.at); err != nil {
		return err
	}
	end := f.at + int64(len(b.Data))
	for c := f.at / cluster; c*cluster < end; c++ {
		f.refer(c)
	}
	f.at = end
	return nil
}

func (f *file) refer(c int64) {
	for int64(len(f.counts)) <= c {
		f.counts = append(f.counts, 0)
	}
	f.counts[c]++
}

// finish writes the tables, which are known only now.
func (f *file) finish(size, tables int64) error {
	// The file ends with whole clusters, and its last are the reference
	// counts, which count themselves.
	table := (f.at + cluster - 1) / cluster
	blocks := int64(1)
	for blocks*refsPerBlock < table+1+blocks {
		blocks++
	}
	for c := table; c < table+1+blocks; c++ {
		f.refer(c)
	}
	if blocks > cluster/8 {
		return fmt.Errorf("%d clusters are more than one cluster of reference counts describes", len(f.counts))
	}
	refs := make([]byte, (1+blocks)*cluster)
	for i := range blocks {
		binary.BigEndian.PutUint64(refs[i*8:], uint64(table+1+i)*cluster)
	}
	for i, n := range f.counts {
		binary.BigEndian.PutUint16(refs[cluster+i*2:], n)
	}
	if _, err := f.w.WriteAt(refs, table*cluster); err != nil {
		return err
	}
	head := make([]byte, (2+tables)*cluster)
	copy(head, header(size, table*cluster, tables))
	for i := range tables {
		binary.BigEndian.PutUint64(head[cluster+i*8:], flagCopied|uint64(2+i)*cluster)
	}
	for i, entry := range f.l2 {
		binary.BigEndian.PutUint64(head[2*cluster+i*8:], entry)
	}
	_, err := f.w.WriteAt(head, 0)
	return err
}

func header(size, refcounts, tables int64) []byte {
	h := make([]byte, headerLen+8) // an extension of type 0 and length 0 ends it
	be := binary.BigEndian
	be.PutUint32(h[0:], magic)
	be.PutUint32(h[4:], 3)
	be.PutUint32(h[20:], clusterBits)
	be.PutUint64(h[24:], uint64(size))
	be.PutUint32(h[36:], uint32(tables))
	be.PutUint64(h[40:], cluster) // level 1
	be.PutUint64(h[48:], uint64(refcounts))
	be.PutUint32(h[56:], 1) // cluster of the table of reference counts
	be.PutUint32(h[96:], refOrder)
	be.PutUint32(h[100:], headerLen)
	return h
}
