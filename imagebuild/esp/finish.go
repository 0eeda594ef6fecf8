package esp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
)

// Offsets in FAT32's boot sector, FSInfo sector and directory entries:
// Microsoft, FAT32 File System Specification 1.03.
const (
	bpbSectorSize  = 11
	bpbClusterSize = 13
	bpbReserved    = 14
	bpbFATs        = 16
	bpbSectors     = 32
	bpbFATSectors  = 36
	bpbRoot        = 44
	bpbSerial      = 67
	fsinfoSector   = 1
	backupSector   = 6
	fsinfoFree     = 488
	fsinfoNext     = 492
	dirEntryLen    = 32
	attrVolume     = 0x08
	attrDirectory  = 0x10
	attrLongName   = 0x0f
	sector         = 512
)

// volume is a FAT32 volume as go-diskfs v1.9.4 left it.
type volume struct {
	f            *os.File
	fat          []uint32
	clusters     uint32 // data clusters, numbered from 2
	clusterBytes int64
	dataStart    int64
	date, time   uint16
}

// finish puts right what the library leaves: ".." of first-level directories
// must name cluster 0, the count of free clusters is unknown, the volume has
// serial 0, and every directory entry has the time of the build's clock.
func finish(f *os.File, o Options) error {
	boot := make([]byte, sector)
	if _, err := f.ReadAt(boot, 0); err != nil {
		return err
	}
	le := binary.LittleEndian
	fatBytes := int64(le.Uint32(boot[bpbFATSectors:])) * sector
	reserved := int64(le.Uint16(boot[bpbReserved:])) * sector
	if le.Uint16(boot[bpbSectorSize:]) != sector || boot[bpbFATs] != 2 || boot[bpbClusterSize] == 0 || fatBytes > o.Size/64 {
		return errors.New("unexpected layout of the volume")
	}
	v := volume{f: f, clusterBytes: int64(boot[bpbClusterSize]) * sector, dataStart: reserved + 2*fatBytes}
	v.clusters = uint32((int64(le.Uint32(boot[bpbSectors:]))*sector - v.dataStart) / v.clusterBytes)
	v.date, v.time = dosTime(o.Time)
	raw := make([]byte, fatBytes)
	if _, err := f.ReadAt(raw, reserved); err != nil {
		return err
	}
	v.fat = make([]uint32, fatBytes/4)
	for i := range v.fat {
		v.fat[i] = le.Uint32(raw[4*i:]) & 0x0fffffff
	}
	root := le.Uint32(boot[bpbRoot:])
	if err := v.directory(root, root, 0); err != nil {
		return err
	}
	free, next, err := v.usage()
	if err != nil {
		return err
	}
	le.PutUint32(boot[bpbSerial:], o.Serial)
	info := make([]byte, sector)
	if _, err := f.ReadAt(info, fsinfoSector*sector); err != nil {
		return err
	}
	le.PutUint32(info[fsinfoFree:], free)
	le.PutUint32(info[fsinfoNext:], next)
	for _, at := range []int64{0, backupSector} {
		if _, err := f.WriteAt(boot, at*sector); err != nil {
			return err
		}
		if _, err := f.WriteAt(info, (at+fsinfoSector)*sector); err != nil {
			return err
		}
	}
	return nil
}

// usage counts free clusters and finds the last one in use. The FAT has room
// for a few clusters more than the volume, and go-diskfs would use them.
func (v *volume) usage() (free, last uint32, err error) {
	for c := uint32(2); c < uint32(len(v.fat)); c++ {
		switch {
		case v.fat[c] != 0 && c >= v.clusters+2:
			return 0, 0, fmt.Errorf("the files do not fit %d bytes", int64(v.clusters)*v.clusterBytes)
		case v.fat[c] != 0:
			last = c
		case c < v.clusters+2:
			free++
		}
	}
	return free, last, nil
}

// directory goes through the entries of the directory at cluster and below.
func (v *volume) directory(cluster, root uint32, depth int) error {
	if depth > 16 {
		return errors.New("directories are nested too deeply")
	}
	buf := make([]byte, v.clusterBytes)
	for cluster >= 2 && cluster < 0x0ffffff8 {
		if cluster >= v.clusters+2 {
			return fmt.Errorf("directory at cluster %d of %d", cluster, v.clusters)
		}
		at := v.dataStart + int64(cluster-2)*v.clusterBytes
		if _, err := v.f.ReadAt(buf, at); err != nil {
			return err
		}
		for i := 0; i < len(buf) && buf[i] != 0; i += dirEntryLen {
			if err := v.entry(buf[i:i+dirEntryLen], root, depth); err != nil {
				return err
			}
		}
		if _, err := v.f.WriteAt(buf, at); err != nil {
			return err
		}
		cluster = v.fat[cluster]
	}
	return nil
}

func (v *volume) entry(e []byte, root uint32, depth int) error {
	le := binary.LittleEndian
	if e[0] == 0xe5 || e[11]&attrLongName == attrLongName {
		return nil
	}
	e[13] = 0 // tenths of the creation time
	for _, at := range []int{14, 22} {
		le.PutUint16(e[at:], v.time)
	}
	for _, at := range []int{16, 18, 24} {
		le.PutUint16(e[at:], v.date)
	}
	if e[11]&attrDirectory == 0 {
		return nil
	}
	child := uint32(le.Uint16(e[20:]))<<16 | uint32(le.Uint16(e[26:]))
	switch string(e[:11]) {
	case ".          ":
	case "..         ":
		if depth == 1 || child == root {
			le.PutUint16(e[20:], 0)
			le.PutUint16(e[26:], 0)
		}
	default:
		return v.directory(child, root, depth+1)
	}
	return nil
}

// dosTime is t in UTC as FAT has it, to two seconds.
func dosTime(t time.Time) (date, clock uint16) {
	t = t.UTC()
	date = uint16((t.Year()-1980)<<9 | int(t.Month())<<5 | t.Day())
	clock = uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2)
	return date, clock
}
