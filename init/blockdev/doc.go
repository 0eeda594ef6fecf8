// Package blockdev finds Keelson's partitions and fits their table to the disk.
//
// Find waits for a partition by its label with the kernel's events. Grow makes
// room on the disk: slot A gets its full size, slot B and STATE are made, STATE
// is enlarged when the disk was; it writes the GUID partition table so that at
// every point between two sector writes a whole table, the old one or the new
// one, is in force. The package knows partitions, not file systems: what is in
// them is the business of package mount.
//
// Format: UEFI specification 2.10, chapter 5 (GUID Partition Table).
package blockdev
