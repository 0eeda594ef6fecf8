package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"keelson/init/console"
	"keelson/init/datadisk"
	"keelson/init/file"
	"keelson/init/identity"
	"keelson/init/layout"
	"keelson/init/mount"
	"keelson/init/shutdown"
)

// end is the machine's end.
func (m *machine) end(r shutdown.Request) {
	shutdown.Run(shutdown.Config{
		Services: m.stopServices,
		Save: func(context.Context) {
			m.stop() // lease renewal, clock and module loading
			m.saveTimeline()
			if m.machineID != "" {
				if err := identity.SaveSeed(layout.RandomSeed); err != nil {
					m.log.Warn("random seed", "error", err)
				}
			}
			m.closeLogs()
		},
		Unmount: func() error {
			if m.config != nil && m.config.Storage.Swap != nil {
				if err := datadisk.SwapOff(m.config.Storage.Swap.Path); err != nil {
					m.log.Warn("swap", "error", err)
				}
			}
			return mount.UnmountState(layout.State)
		},
		Say:    m.con.Printf,
		Flush:  func() { m.con.Flush(time.Second) },
		Logger: m.log,
	}, r)
}

func (m *machine) closeLogs() {
	m.record.SetFile(nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.logs {
		if err := l.Close(); err != nil {
			m.log.Warn("log", "error", err)
		}
	}
	m.logs = nil
}

// stopServices ends what is supervised and returns when it is gone.
func (m *machine) stopServices(ctx context.Context) {
	m.mu.Lock()
	running := make([]*supervised, 0, len(m.services))
	for _, s := range m.services {
		running = append(running, s)
	}
	m.mu.Unlock()
	for _, s := range running {
		s.stop()
	}
	for _, s := range running {
		select {
		case <-s.done:
		case <-ctx.Done():
			s.Kill()
		}
	}
}

// keys are the diagnostics at the console.
func (m *machine) keys() []console.Key {
	return []console.Key{
		{Key: 's', Help: "status: services, the steps of the boot, and what of the user-data is passed over", Do: m.status},
		{Key: 'l', Help: "logs of the services on the console, on or off", Do: func() []string {
			on := !m.logsOn.Load()
			m.logsOn.Store(on)
			if on {
				return []string{"logs: on (press l again for off)"}
			}
			return []string{"logs: off"}
		}},
	}
}

func (m *machine) status() []string {
	lines := m.timeline.Lines()
	children, reaped := m.reaper.Alive()
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.services {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		lines = append(lines, fmt.Sprintf("service %s: %s", name, m.services[name].State()))
	}
	lines = append(lines, m.notes...)
	return append(lines, fmt.Sprintf("children: %d own, %d inherited and reaped", children, reaped))
}

// powerState ends a machine that user-data wants ended once its first boot is
// complete: once for an instance, as in cloud-init, or it would never stay up.
func (m *machine) powerState(ctx context.Context) error {
	p := m.config.Power
	wish := fmt.Sprintf("%s of instance %q\n", p.Action, m.config.InstanceID)
	if b, err := os.ReadFile(layout.PowerState); err == nil && string(b) == wish {
		return nil
	}
	select {
	case <-time.After(p.Delay):
	case <-ctx.Done():
		return nil
	}
	if err := file.Write(layout.PowerState, []byte(wish), 0o644); err != nil {
		return err // better up than in a circle
	}
	action := shutdown.PowerOff
	if p.Action == "reboot" {
		action = shutdown.Reboot
	}
	m.requests <- shutdown.Request{Action: action, Why: "power_state in the user-data"}
	return nil
}
