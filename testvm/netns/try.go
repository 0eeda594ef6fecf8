package netns

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Try finds out whether this host lets machines run, by making what one needs and taking it away again: namespaces,
// cgroups, a LAN, the file systems of a root and of containers, the overlay network's links and the firewall's tables. A
// host that is itself a container may forbid any of them. dir is made and removed; init is of Build.
func Try(dir, init string, root *Root) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("this host does not let machines run: %w", err)
		}
	}()
	lan, err := NewLAN()
	if err != nil {
		return err
	}
	defer lan.Close()
	m, err := New(Config{Name: "try", N: 253, Dir: dir, Init: init, Root: root, LAN: lan})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Remove()) }()
	if err := m.launch(); err != nil {
		return err
	}
	if err := in(m.net.Load(), tryNetwork); err != nil {
		return err
	}
	return tryMounts(root, dir)
}

// tryNetwork makes flannel's link and asks for the tables that kube-proxy fills, in a network namespace of nobody's.
func tryNetwork() error {
	if err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "try"}, VxlanId: 1, Port: 8472}); err != nil {
		return fmt.Errorf("make vxlan link: %w", err)
	}
	// NFT_MSG_GETGEN: which generation the tables are of (linux/netfilter/nf_tables.h).
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	if _, err := request.Execute(unix.NETLINK_NETFILTER, 0); err != nil {
		return fmt.Errorf("ask for nftables: %w", err)
	}
	return nil
}

// tryMounts mounts the root, and an overlay as containers have, in a mount namespace that goes with its thread.
func tryMounts(root *Root, dir string) error {
	for _, name := range []string{"image", "lower", "upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good, as in function in
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			done <- fmt.Errorf("make mount namespace: %w", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			done <- fmt.Errorf("make mounts private: %w", err)
			return
		}
		if !root.folder {
			if err := unix.Mount(root.path, at("image"), "erofs", unix.MS_RDONLY, ""); err != nil {
				done <- fmt.Errorf("mount the image's root (erofs): %w", err)
				return
			}
			if err := tryProgram("/proc/self/exe", filepath.Join(at("image"), "usr/sbin/init")); err != nil {
				done <- err
				return
			}
		}
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", at("lower"), at("upper"), at("work"))
		if err := unix.Mount("overlay", at("merged"), "overlay", 0, options); err != nil {
			done <- fmt.Errorf("mount overlay: %w", err)
			return
		}
		done <- nil
	}()
	return <-done
}

// tryProgram says whether a program of the image is for this host's processor, as own is. Machines here are not emulated.
func tryProgram(own, image string) error {
	var machines [2]elf.Machine
	for i, name := range []string{own, image} {
		f, err := elf.Open(name)
		if err != nil {
			return fmt.Errorf("see what processor %s is for: %w", name, err)
		}
		machines[i] = f.Machine
		if err := f.Close(); err != nil {
			return err
		}
	}
	if machines[0] != machines[1] {
		return fmt.Errorf("the image is for another processor (%s) than this host has (%s)", machines[1], machines[0])
	}
	return nil
}
