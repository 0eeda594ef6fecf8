// Package kernel is PID 1's side of the kernel's own settings: its command
// line, its modules and its sysctls.
//
// Modules are found as kmod finds them, by the text files that depmod writes
// (modules.dep, modules.alias, modules.softdep) and the modalias that every
// device shows in /sys; a Loader loads a module after what it needs,
// independent ones side by side, and goes on doing so for devices that appear
// later. The same code answers the kernel's own requests for a module (Request),
// for there is no modprobe on a Keelson machine. The package never unloads
// anything and reads no settings of the user.
package kernel
