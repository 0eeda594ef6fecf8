package main

import (
	"context"
	"fmt"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// onNode becomes a program of the node: in the mounts and the network of the node's PID 1, which a privileged pod in
// the node's process namespace sees. A thread enters alone, and may enter mounts only when it shares its working
// directory with no other (setns(2)); the program that replaces the process then starts from it.
func onNode(_ context.Context, args []string) error {
	runtime.LockOSThread()
	var fds []int
	kinds := []struct {
		name string
		flag int
	}{{"net", unix.CLONE_NEWNET}, {"mnt", unix.CLONE_NEWNS}}
	for _, kind := range kinds { // both before the first is entered: /proc is another one then
		fd, err := unix.Open("/proc/1/ns/"+kind.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open the node's %s namespace: %w", kind.name, err)
		}
		fds = append(fds, fd)
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("part from the other threads: %w", err)
	}
	for i, kind := range kinds {
		if err := unix.Setns(fds[i], kind.flag); err != nil {
			return fmt.Errorf("enter the node's %s namespace: %w", kind.name, err)
		}
	}
	env := []string{"PATH=/usr/bin:/usr/sbin:/bin:/sbin", "HOME=/root"}
	if err := syscall.Exec(args[0], args, env); err != nil {
		return fmt.Errorf("become %s: %w", args[0], err)
	}
	return nil
}
