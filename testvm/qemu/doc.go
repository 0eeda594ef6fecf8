// Package qemu starts and ends QEMU: the command line of one machine, the
// choice of an accelerator by a boot that is tried, the QMP client and the
// disks that a machine writes to.
//
// It knows nothing of Keelson: what is booted, and what its console says, is
// the business of package machine, which is its main user (package bench
// starts bare kernels with it). It never waits for a guest, and it never opens
// a port beyond loopback.
package qemu
