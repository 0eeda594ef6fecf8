package blockdev

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// loopSector is the sector of the devices that Loop makes: FAT volumes have such sectors, and the kernel mounts none from a
// device with larger ones, as CDs are.
const loopSector = 512

// Loop makes a read-only device of size bytes of another one from start on, and returns its node. The module loop must be
// loaded. The device lasts as long as the machine.
func Loop(device string, start, size uint64) (string, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("open loop devices: %w", err)
	}
	defer control.Close()
	backing, err := os.Open(device)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", device, err)
	}
	defer backing.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return "", fmt.Errorf("get a loop device: %w", err)
	}
	path := fmt.Sprintf("/dev/loop%d", n)
	loop, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("open loop device: %w", err)
	}
	defer loop.Close()
	c := unix.LoopConfig{
		Fd: uint32(backing.Fd()), Size: loopSector,
		Info: unix.LoopInfo64{Offset: start, Sizelimit: size, Flags: unix.LO_FLAGS_READ_ONLY},
	}
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &c); err != nil {
		return "", fmt.Errorf("make %s of %s: %w", path, device, err)
	}
	return path, nil
}
