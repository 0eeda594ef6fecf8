// Command init is PID 1 of a Keelson machine.
//
// The kernel starts it in the initramfs. boot.go holds the ordered list of all
// that it does until the node is supervised; machine.go what goes on beside and
// after that. It links no Kubernetes, listens on no port and has no settings of
// its own: all that it knows comes from the kernel command line, the image and
// the user-data.
//
// The kernel also starts it, as any other process, to ask for a module: there
// is no modprobe on the machine.
package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"keelson/init/kernel"
	"keelson/init/kmsg"
	"keelson/init/layout"
)

func main() {
	if os.Getpid() == 1 {
		// A small heap matters more than the collector's time here.
		debug.SetGCPercent(50)
		newMachine().run()
		return
	}
	name, ok := kernel.ParseRequest(os.Args)
	if !ok {
		fmt.Fprintln(os.Stderr, "init: is PID 1 of a Keelson machine and does nothing when started by hand")
		os.Exit(2)
	}
	if err := answer(name); err != nil {
		if f, oerr := os.OpenFile(kmsg.Device, os.O_WRONLY, 0); oerr == nil {
			fmt.Fprintf(f, "<6>keelson: %v\n", err)
		}
		os.Exit(1)
	}
}

// answer loads the module that the kernel asks for.
func answer(name string) error {
	dir, err := kernel.ModuleDir(layout.Modules)
	if err != nil {
		return err
	}
	loader, err := kernel.NewLoader(kernel.LoaderConfig{Dir: dir, Sys: "/sys", Logger: kmsg.Logger(os.Stderr)})
	if err != nil {
		return err
	}
	return loader.Load(name)
}
