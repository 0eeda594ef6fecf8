package main

import "keelson/init/sequence"

// boot is the whole boot, in order. A step begins when those it names are done,
// so what stands side by side in the list runs side by side. Until "switch
// root" the machine runs from the initramfs, then from the verified root.
func (m *machine) boot() []sequence.Step {
	type after = []string
	const halt, reboot, goOn = sequence.Halt, sequence.Reboot, sequence.GoOn
	return []sequence.Step{
		// In the initramfs.
		{Name: "kernel file systems", Policy: reboot, Do: m.kernelFileSystems},
		{Name: "console", After: after{"kernel file systems"}, Policy: goOn, Do: m.openConsole},
		{Name: "boot modules", After: after{"console"}, Policy: reboot, Do: m.bootModules},
		{Name: "clock floor", After: after{"console"}, Policy: goOn, Do: m.clockFloor},
		{Name: "boot medium", After: after{"console"}, Policy: reboot, Do: m.findMedium},
		{Name: "partitions", After: after{"boot medium"}, Policy: halt, Do: m.growDisk},
		{Name: "verified root", After: after{"boot medium", "boot modules"}, Policy: halt, Do: m.mountRoot},
		{Name: "switch root", After: after{"verified root", "partitions"}, Policy: halt, Do: m.switchRoot},

		// From the verified root.
		{Name: "cgroups", After: after{"switch root"}, Policy: halt, Do: m.cgroups},
		{Name: "modules", After: after{"switch root"}, Policy: goOn, Do: m.rootModules},
		{Name: "sysctls", After: after{"modules"}, Policy: goOn, Do: m.sysctls},
		{Name: "volatile folders", After: after{"switch root"}, Policy: halt, Do: m.volatileFolders},
		{Name: "state", After: after{"cgroups"}, Policy: halt, Do: m.mountState},
		{Name: "identity", After: after{"state", "volatile folders"}, Policy: halt, Do: m.identity},
		{Name: "user-data", After: after{"identity", "sysctls"}, Policy: halt, Do: m.userData},
		{Name: "network", After: after{"user-data"}, Policy: goOn, Do: m.startNetwork},
		{Name: "clock", After: after{"network"}, Policy: goOn, Do: m.startClock},
		{Name: "node", After: after{"clock"}, Policy: halt, Do: m.startNode},
		{Name: "watchdog", After: after{"node"}, Policy: goOn, Do: m.startWatchdog},
	}
}
