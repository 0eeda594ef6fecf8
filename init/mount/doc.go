// Package mount arranges the machine's file systems: the kernel's own, the
// verified root, the state, and a writable /etc in memory.
//
// It mounts and moves; it decides nothing about what is on a disk (packages
// blockdev, devmapper and ext4 do that first). All is done once, by the boot
// steps of init, and undone by UnmountAll.
package mount
