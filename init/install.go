package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"keelson/init/blockdev"
	"keelson/init/bootentry"
	"keelson/init/install"
	"keelson/init/layout"
	"keelson/init/mount"
	"keelson/init/shutdown"
	"keelson/init/userdata"
)

// A machine that runs live and is asked to install itself does nothing else: the settings are for the installed system.

// install puts the system on the disk that user-data asks for and has the machine end. Where it cannot, it says why; another
// document, or another disk, is another try.
func (m *machine) install(ctx context.Context, docs userdata.Documents, nextDevice func(context.Context) error) bool {
	begin := time.Now()
	plan, err := m.planInstall(ctx, docs, nextDevice)
	var choice *install.Choice
	switch {
	case errors.As(err, &choice):
		m.con.Printf("user-data: %s", problemOf(m.config.Install, choice))
		m.documents = userdata.Documents{} // a disk that appears makes the same ones worth another try
		return false
	case err != nil:
		m.con.Printf("install: %s", oneLine(err))
		return false
	case plan.Holds.Kind == install.Installed:
		m.con.Printf("install: %s has what this user-data installs, and is not touched: remove the medium and restart, "+
			"or have the firmware start from the disk; other user-data, if only by a comment, with wipe: true installs anew", plan.Disk)
		return false
	}
	plan.Print()
	if err := plan.Run(ctx); err != nil {
		m.con.Printf("install: %s", oneLine(err))
		m.con.Printf("install: not finished: restart the machine from the medium to begin again")
		m.log.Error("install", "disk", plan.Disk.Name, "error", err)
		return false
	}
	if err := tellFirmware(plan); err != nil {
		m.con.Printf("install: %s: where the firmware prefers the medium, remove it", oneLine(err))
		m.log.Error("tell the firmware of the disk", "disk", plan.Disk.Name, "error", err)
	}
	m.con.Printf("install: done in %.0f s", time.Since(begin).Seconds())
	action := shutdown.Reboot
	if m.config.Install.Then == userdata.ThenPowerOff {
		action = shutdown.PowerOff
	}
	m.requests <- shutdown.Request{Action: action, Why: "installed to " + plan.Disk.Path()}
	return true
}

// tellFirmware has UEFI start the disk next, and before the medium from then on. Without it the disk is as whole.
func tellFirmware(plan *install.Plan) error {
	if !onUEFI() {
		return nil
	}
	esp := plan.Table.Entries[layout.NumberESP-1]
	return mount.Firmware(func(dir string) error {
		return bootentry.Ensure(dir, bootentry.Loader{
			Partition: layout.NumberESP, Start: esp.First, Sectors: esp.Sectors(), ID: esp.ID, Path: bootentry.Fallback(runtime.GOARCH),
		})
	})
}

func onUEFI() bool {
	_, err := os.Stat("/sys/firmware/efi")
	return err == nil
}

func problemOf(in *userdata.Install, c *install.Choice) userdata.Problem {
	return userdata.Problem{Source: in.Source, Line: in.Line, Key: c.Key, Text: c.Text}
}

func (m *machine) planInstall(ctx context.Context, docs userdata.Documents, nextDevice func(context.Context) error) (*install.Plan, error) {
	medium, err := install.OpenMedium("/dev", m.ofMedium)
	if err != nil {
		return nil, err
	}
	m.task("medium", func(ctx context.Context) error { <-ctx.Done(); return medium.Close() })
	return install.New(ctx, install.Config{
		Want: *m.config.Install, Instance: m.config.InstanceID, Documents: docs,
		Payload: medium.Payload, Source: medium.Source, Medium: m.medium.Disk, UEFI: onUEFI(),
		Sys: "/sys", Dev: "/dev", Temp: layout.Run, Tools: tools{m.reaper}, NextDevice: nextDevice,
		Release: m.release,
		Say:     func(format string, args ...any) { m.con.Printf(format, args...) },
	})
}

// release takes the machine's state, which it found on a disk, into memory where that disk is to be written.
func (m *machine) release(disk string) error {
	if m.statePart.Disk != disk {
		return nil
	}
	m.record.SetFile(nil)
	m.mu.Lock()
	for _, log := range m.logs {
		log.Close() // what it had to say of the old state goes with it
	}
	m.logs = nil
	m.mu.Unlock()
	unix.Sync()
	if err := mount.ReleaseState(); err != nil {
		return fmt.Errorf("the state of the machine is on the disk: %w", err)
	}
	m.statePart = blockdev.Partition{}
	if err := mount.StateInMemory(); err != nil {
		return err
	}
	if err := mount.BindRancher(); err != nil {
		return err
	}
	return m.keepLog()
}
