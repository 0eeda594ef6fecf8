// Package ext4 makes, checks and judges the state file system.
//
// Look reads what a partition holds and decides whether it is empty, an ext4 of
// ours, or foreign data that must not be touched. Ensure brings it into a state
// in which it can be mounted, with Debian's mke2fs and e2fsck from the verified
// root. Nothing here ever formats a partition on which it saw data. The package
// does not mount; package mount does.
//
// Format: Linux, Documentation/filesystems/ext4/super.rst.
package ext4
