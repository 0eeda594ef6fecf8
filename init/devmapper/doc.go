// Package devmapper activates a dm-verity device with device-mapper's ioctls.
//
// It knows the three calls that PID 1 needs (create, load table, resume) and
// the words in which dm-verity reports damage to the kernel log, so that the
// root can be verified without libdevmapper. It opens no file of a user and
// never writes to a disk. Package main of init uses it for the root.
//
// Formats: include/uapi/linux/dm-ioctl.h and
// Documentation/admin-guide/device-mapper/verity.rst of Linux.
package devmapper
