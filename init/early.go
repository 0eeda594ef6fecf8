package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"keelson/init/blockdev"
	"keelson/init/console"
	"keelson/init/devmapper"
	"keelson/init/ext4"
	"keelson/init/kernel"
	"keelson/init/kmsg"
	"keelson/init/layout"
	"keelson/init/mount"
	"keelson/init/shutdown"
	"keelson/init/uevent"

	"golang.org/x/sys/unix"
)

// The steps in the initramfs, in the order of the list in boot.go.

func (m *machine) kernelFileSystems(context.Context) error {
	unix.Umask(0o022)
	if err := mount.Pseudo(); err != nil {
		return err
	}
	// The kernel's rate limit for programs would drop what explains a failure.
	if err := os.WriteFile("/proc/sys/kernel/printk_devkmsg", []byte("on\n"), 0); err != nil {
		return fmt.Errorf("open the kernel log to init: %w", err)
	}
	ring, err := os.OpenFile(kmsg.Device, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open kernel log: %w", err)
	}
	m.record.SetRing(ring)
	if err := debug.SetCrashOutput(ring, debug.CrashOptions{}); err != nil {
		return fmt.Errorf("send crashes to the kernel log: %w", err)
	}
	raw, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("read the kernel command line: %w", err)
	}
	m.rawCmdline = string(raw)
	m.cmdline = kernel.ParseCmdline(m.rawCmdline)
	if v, _ := m.cmdline.Get(layout.ParamLogs); v == "console" {
		m.logsOn.Store(true)
	}
	if _, set := m.cmdline.Get("panic"); !set {
		// A crash of PID 1 must end in a reboot.
		if err := os.WriteFile("/proc/sys/kernel/panic", []byte("10\n"), 0); err != nil {
			return fmt.Errorf("set reboot on panic: %w", err)
		}
	}
	if err := os.MkdirAll(layout.Run, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", layout.Run, err)
	}
	if m.events, err = uevent.Listen(m.log); err != nil {
		return err
	}
	m.task("device events", m.events.Run)
	return shutdown.CaptureCtrlAltDel()
}

func (m *machine) openConsole(context.Context) error {
	names, err := console.Active("/sys/class/tty/console/active")
	if err != nil || len(names) == 0 {
		names = []string{"console"}
	}
	defer m.con.Opened()
	var last error
	opened := 0
	for _, name := range names {
		f, err := console.Open("/dev/" + name)
		if err != nil {
			last = err
			continue
		}
		opened++
		m.con.Add(f)
		m.task("console "+name, func(ctx context.Context) error {
			if err := m.con.Keys(ctx, f, m.keys()); err != nil {
				m.log.Info("console without keys", "console", name, "error", err)
			}
			return nil
		})
	}
	input := m.events.Subscribe("input")
	m.task("power button", func(ctx context.Context) error {
		shutdown.Buttons(ctx, input, m.requests, m.log)
		return nil
	})
	m.task("kernel log", func(ctx context.Context) error {
		return kmsg.Watch(ctx, func(r kmsg.Record) {
			if err := m.damage(r); err != nil {
				select {
				case m.faults <- err:
				default: // one is enough
				}
			}
		})
	})
	if opened == 0 {
		return last
	}
	return nil
}

// rootNeeds are the modules of the root itself; no device asks for them.
func rootNeeds() []string { return []string{"dm_mod", "dm_verity", "erofs"} }

// fastHash are the modules that verify the root with the processor's own
// instructions, by architecture; the kernel's plain code is several times
// slower. No device asks for them, and dm-verity takes what is there when the
// root is opened.
func fastHash() []string { return []string{"sha256_ssse3", "sha2_ce"} }

func (m *machine) bootModules(context.Context) error {
	loader, err := m.newLoader("/lib/modules")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(m.ctx)
	m.stopBoot = cancel
	sub := m.events.Subscribe("")
	m.task("boot modules", func(context.Context) error {
		defer sub.Close()
		return loader.Run(ctx, sub)
	})
	// Nobody waits for the devices here: "boot medium" waits for its partition,
	// and what is not loaded by the switch is loaded from the root.
	m.task("boot devices", func(context.Context) error { return loader.Coldplug() })
	for _, name := range fastHash() {
		if err := loader.Load(name); err != nil {
			m.log.Debug("root is verified without it", "module", name, "reason", err)
		}
	}
	return loader.Load(rootNeeds()...)
}

func (m *machine) newLoader(base string) (*kernel.Loader, error) {
	dir, err := kernel.ModuleDir(base)
	if err != nil {
		return nil, err
	}
	return kernel.NewLoader(kernel.LoaderConfig{Dir: dir, Sys: "/sys", Params: m.cmdline.ModuleParams(), Logger: m.log})
}

// sysBlock is where the kernel lists block devices.
const sysBlock = "/sys/class/block"

// mediumTimeout is how long a slow controller may take to show its disks.
const mediumTimeout = 60 * time.Second

// secondTimeout is how long the right disk may take once a wrong one is there.
const secondTimeout = 5 * time.Second

func (m *machine) findMedium(ctx context.Context) error {
	value, _ := m.cmdline.Get(layout.ParamSlot)
	slot, err := layout.ParseSlot(value)
	if err != nil {
		return fmt.Errorf("kernel parameter %s: %w", layout.ParamSlot, err)
	}
	value, _ = m.cmdline.Get(layout.ParamVerity)
	if m.verity, err = layout.ParseVerity(value); err != nil {
		return fmt.Errorf("kernel parameter: %w", err)
	}
	sub := m.events.Subscribe("block")
	defer sub.Close()
	ctx, cancel := context.WithTimeout(ctx, mediumTimeout)
	defer cancel()
	only := func(p blockdev.Partition) error {
		f, err := os.Open(p.Device())
		if err != nil {
			return err
		}
		defer f.Close()
		from := int64(0)
		if p.Undivided {
			from = int64(p.Start)
		}
		err = devmapper.CheckSuperblock(io.NewSectionReader(f, from, int64(p.Size)), m.verity)
		if err != nil {
			m.log.Warn("boot medium", "partition", p, "error", err)
			time.AfterFunc(secondTimeout, cancel)
		}
		return err
	}
	if m.live() {
		m.root, err = m.findLive(ctx, sub, only)
	} else {
		m.root, err = blockdev.Find(ctx, sysBlock, sub, slot.Label(), only)
	}
	if err != nil {
		return err
	}
	dev, err := os.ReadFile(filepath.Join(sysBlock, m.root.Name, "dev"))
	if err != nil {
		return fmt.Errorf("device number of %s: %w", m.root, err)
	}
	m.mu.Lock()
	m.rootName, m.rootDev = m.root.String(), string(dev[:len(dev)-1])
	m.mu.Unlock()
	return nil
}

func (m *machine) growDisk(context.Context) error {
	if m.live() {
		return nil // the medium stays as it is
	}
	disk, err := blockdev.Grow(m.root.Disk, m.log, func(f *os.File, start, size int64) error {
		return ext4.Prepare(f, start, size)
	})
	m.disk = disk
	return err
}

func (m *machine) mountRoot(context.Context) error {
	device, err := devmapper.Create(layout.VerityName, "CRYPT-VERITY-"+layout.VerityName,
		devmapper.VerityTarget(m.root.Device(), m.verity))
	if err != nil {
		return fmt.Errorf("root partition %s: %w", m.root, err)
	}
	m.rootDevice = device
	if err := mount.Root(device); err != nil {
		return fmt.Errorf("root partition %s: %w", m.root, err)
	}
	return nil
}

func (m *machine) switchRoot(context.Context) error {
	m.stopBoot()
	if err := mount.SwitchRoot(); err != nil {
		return err
	}
	return kernel.EnsureHelper(layout.Init)
}
