package devmapper

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Control is device-mapper's node; it is there once dm_mod is loaded.
const Control = "/dev/mapper/control"

// struct dm_ioctl and struct dm_target_spec.
const (
	ioctlSize  = 312
	specSize   = 40
	offDevNo   = 40
	offName    = 48
	offUUID    = 176
	nameLen    = 128
	uuidLen    = 129
	flagRO     = 1 << 0
	offDataSz  = 12
	offStart   = 16
	offTargets = 20
	offFlags   = 28
)

// Numbers of the commands: DM_DEV_CREATE, DM_DEV_REMOVE, DM_DEV_SUSPEND (which
// also resumes), DM_TABLE_LOAD.
const (
	cmdCreate  = 3
	cmdRemove  = 4
	cmdSuspend = 6
	cmdLoad    = 9
)

// request renders one ioctl buffer.
func request(name, uuid string, flags uint32, table *Target) ([]byte, error) {
	if len(name) >= nameLen || len(uuid) >= uuidLen {
		return nil, fmt.Errorf("device-mapper name %q: too long", name)
	}
	b := make([]byte, ioctlSize, ioctlSize+1024)
	le := binary.NativeEndian
	le.PutUint32(b[0:], 4) // version 4.0.0: every kernel with this major takes it
	le.PutUint32(b[offStart:], ioctlSize)
	le.PutUint32(b[offFlags:], flags)
	copy(b[offName:], name)
	copy(b[offUUID:], uuid)
	if table != nil {
		le.PutUint32(b[offTargets:], 1)
		spec := make([]byte, specSize)
		le.PutUint64(spec[8:], table.Sectors)
		copy(spec[24:], table.Type)
		b = append(append(b, spec...), table.Params...)
		b = append(b, make([]byte, 8-len(table.Params)%8)...)
	}
	le.PutUint32(b[offDataSz:], uint32(len(b)))
	return b, nil
}

func call(control *os.File, cmd uintptr, b []byte) error {
	// _IOWR(DM_IOCTL, cmd, struct dm_ioctl)
	const dir, typ = 3 << 30, 0xfd << 8
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), dir|ioctlSize<<16|typ|cmd, uintptr(unsafe.Pointer(&b[0])))
	if errno != 0 {
		return errno
	}
	return nil
}

// Target is one target that covers a whole device.
type Target struct {
	Type    string
	Params  string
	Sectors uint64
}

// Create makes a read-only device of one target and returns its node
// (/dev/dm-N, which devtmpfs makes).
func Create(name, uuid string, t Target) (string, error) {
	control, err := os.OpenFile(Control, os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("open device-mapper: %w", err)
	}
	defer control.Close()
	var minor uint64
	for _, step := range []struct {
		what  string
		cmd   uintptr
		flags uint32
		table *Target
	}{
		{"create", cmdCreate, flagRO, nil},
		{"load table of", cmdLoad, flagRO, &t},
		{"resume", cmdSuspend, 0, nil},
	} {
		// After creation the name alone selects: uuid and name exclude each other.
		id := ""
		if step.cmd == cmdCreate {
			id = uuid
		}
		b, err := request(name, id, step.flags, step.table)
		if err == nil {
			err = call(control, step.cmd, b)
		}
		if err != nil {
			if step.cmd != cmdCreate {
				if r, rerr := request(name, "", 0, nil); rerr == nil {
					call(control, cmdRemove, r) // best effort: the first error counts
				}
			}
			return "", fmt.Errorf("%s device-mapper device %s: %w", step.what, name, err)
		}
		minor = uint64(unix.Minor(binary.NativeEndian.Uint64(b[offDevNo:])))
	}
	return fmt.Sprintf("/dev/dm-%d", minor), nil
}
