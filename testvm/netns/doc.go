// Package netns makes namespace machines: the root of the image and its node, started in namespaces of the host with
// a network, cgroups and a disk of their own, for clusters at native speed.
//
// What a real machine's kernel, firmware and init give, the host and package inside give here; from user-data on, all
// is the product's. Machines see each other on a LAN in a network namespace without a way out; the host's network,
// its firewall and its kernel settings stay as they are. It needs root. Processes, mounts, networks and the loop device
// end with the process of the test, whatever ends it; folders of cgroups are removed by the next run if need be.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrNoRoot says why there are no machines here.
var ErrNoRoot = errors.New("namespace machines need root: run as root, or leave them out")

// Check tells whether this process can make machines.
func Check() error {
	if os.Geteuid() != 0 {
		return ErrNoRoot
	}
	return nil
}

// in runs do on a thread that is in the network namespace. The thread ends with it, so that nothing else ever runs
// there; sockets that do makes stay in the namespace.
func in(ns *os.File, do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: a goroutine that ends locked takes its thread along
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		done <- do()
	}()
	return <-done
}
