package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"keelson/init/blockdev"
	"keelson/init/ext4"
	"keelson/init/identity"
	"keelson/init/kernel"
	"keelson/init/layout"
	"keelson/init/mount"
	"keelson/init/service"
	"keelson/init/userdata"
	"keelson/init/watchdog"

	"golang.org/x/sys/unix"
)

// The steps from the verified root, but for those that follow the user-data
// (settings.go).

func (m *machine) cgroups(context.Context) error {
	if err := mount.Share(); err != nil {
		return err
	}
	// Nobody waits for these, and tracefs takes long on a slow machine.
	m.task("kernel file systems", func(context.Context) error { return mount.Kernel() })
	return mount.Cgroup()
}

func (m *machine) rootModules(context.Context) error {
	loader, err := m.newLoader(layout.Modules)
	if err != nil {
		return err
	}
	m.loader = loader
	names, err := kernel.LoadModuleNames(layout.ModulesLoad)
	if err != nil {
		return err
	}
	sub := m.events.Subscribe("")
	m.task("modules", func(ctx context.Context) error {
		defer sub.Close()
		return loader.Run(ctx, sub)
	})
	named := make(chan error, 1)
	go func() { named <- loader.Load(names...) }()
	if err := loader.Coldplug(); err != nil {
		return err
	}
	return <-named
}

func (m *machine) sysctls(context.Context) error {
	settings, err := kernel.LoadSysctls(layout.SysctlDir)
	if err != nil {
		return err
	}
	return kernel.ApplySysctls("/proc/sys", settings)
}

func (m *machine) volatileFolders(context.Context) error { return mount.Volatile() }

func (m *machine) mountState(ctx context.Context) error {
	if m.live() {
		return m.mountLiveState(ctx)
	}
	return m.mountStateOf(ctx, m.disk.Partition(layout.NumberState))
}

// mountStateOf checks the file system of a partition, or makes it, and mounts it.
func (m *machine) mountStateOf(ctx context.Context, part blockdev.Partition) error {
	result, err := ext4.Ensure(ctx, tools{m.reaper}, part.Device())
	if err != nil {
		return err
	}
	m.log.Info("state checked", "partition", part, "made", result.Made, "repaired", result.Repaired)
	if result.Repaired {
		m.con.Printf("state: %s: errors were repaired", part)
	}
	if err := mount.State(part.Device()); err != nil {
		return err
	}
	if !result.Made && result.Bytes+layout.Align <= part.Size {
		if err := mount.GrowState(part.Size); err != nil {
			return err
		}
		m.log.Info("state enlarged", "from", result.Bytes, "to", part.Size)
	}
	m.statePart = part
	return m.keepLog()
}

// keepLog has PID 1's own log written to the state.
func (m *machine) keepLog() error {
	file, err := m.openLog("init")
	if err != nil {
		return err
	}
	m.record.SetFile(file)
	return nil
}

// openLog opens a bounded log that the end of the machine closes: STATE cannot
// be unmounted before.
func (m *machine) openLog(name string) (*service.LogFile, error) {
	file, err := service.OpenLogFile(filepath.Join(layout.Logs, name+".log"), logLimit)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.logs = append(m.logs, file)
	return file, nil
}

// tools runs the file system tools as children of PID 1.
type tools struct{ reaper *service.Reaper }

func (t tools) Run(ctx context.Context, argv ...string) (string, int, error) {
	return t.reaper.Tool(ctx, argv...)
}

func (m *machine) identity(context.Context) error {
	if err := mount.BindRancher(); err != nil {
		return err
	}
	var err error
	if m.machineID, err = identity.EnsureMachineID(layout.MachineID); err != nil {
		return err
	}
	return identity.LoadSeed(layout.RandomSeed)
}

// logLimit bounds the log files of one service together.
const logLimit = 16 << 20

func (m *machine) startNode(context.Context) error {
	role := m.config.Role
	if role == "" {
		role = userdata.RoleServer
	}
	return m.supervise("node", layout.Node, role)
}

// supervise starts a service and keeps it running until the machine ends.
func (m *machine) supervise(name string, argv ...string) error {
	log, err := m.openLog(name)
	if err != nil {
		return err
	}
	s, err := service.New(service.Config{
		Name: name, Argv: argv, Cgroup: "/sys/fs/cgroup/" + name, Log: log, OnLine: m.show(name),
		Reaper: m.reaper, Logger: m.log,
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(m.ctx)
	sv := &supervised{Service: s, stop: stop, done: make(chan struct{})}
	m.mu.Lock()
	m.services[name] = sv
	m.mu.Unlock()
	m.task(name, func(context.Context) error {
		defer close(sv.done)
		return s.Run(ctx)
	})
	return nil
}

// show picks the lines of a service that belong on the console.
func (m *machine) show(name string) func(string) {
	return func(line string) {
		switch {
		case strings.HasPrefix(line, "keelson: "):
			m.con.Line(line)
		case m.logsOn.Load():
			m.con.Line(name + ": " + line)
		}
	}
}

func (m *machine) startWatchdog(context.Context) error {
	m.task("watchdog", func(ctx context.Context) error {
		return watchdog.Run(ctx, watchdog.Config{
			Device: watchdog.Device, Logger: m.log,
			Checks: []watchdog.Check{
				{Name: "children", Do: func(context.Context) error { m.reaper.Alive(); return nil }},
				{Name: "services", Do: m.servicesAlive},
				{Name: "state", Do: stateAlive},
			},
		})
	})
	return nil
}

// servicesAlive fails when a supervisor is gone although the machine lives.
func (m *machine) servicesAlive(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, s := range m.services {
		select {
		case <-s.done:
			if m.ctx.Err() == nil {
				return fmt.Errorf("nobody supervises %s", name)
			}
		default:
			s.State() // hangs with the supervisor's lock
		}
	}
	return nil
}

// stateAlive touches STATE: a disk that no longer answers blocks here.
func stateAlive(context.Context) error {
	var st unix.Statfs_t
	if err := unix.Statfs(layout.State, &st); err != nil {
		return fmt.Errorf("look at %s: %w", layout.State, err)
	}
	return nil
}
