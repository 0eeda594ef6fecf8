// Package uevent hears what the kernel says about devices: one netlink socket,
// any number of subscribers.
//
// It is how PID 1 waits for hardware without polling: package kernel loads
// modules for new devices, package blockdev waits for partitions, the boot
// waits for a corrected user-data medium. The package never acts on a device
// and never looks into /sys itself. Whoever needs the present state subscribes
// first, then reads /sys, then waits: so nothing falls in between.
package uevent
