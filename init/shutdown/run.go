package shutdown

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Config says what is to be stopped and how long it may take.
type Config struct {
	// Services stops what PID 1 supervises with SIGTERM and returns when it is
	// gone or ctx ends.
	Services func(ctx context.Context)
	// Save keeps what must survive (random seed, time line); bounded by ctx.
	Save func(ctx context.Context)
	// Unmount closes the state.
	Unmount func() error
	// Say tells the person at the console.
	Say    func(format string, args ...any)
	Flush  func()
	Logger *slog.Logger

	Deadline time.Duration // for everything; zero means DefaultDeadline
	Reboot   func(Action)  // the last step; nil means reboot(2)
}

// DefaultDeadline is enough for etcd to close its files on a slow disk; a power
// button held down is faster.
const DefaultDeadline = 60 * time.Second

// Shares of the deadline at which each stage must give way to the next.
const (
	servicesUntil = 0.4
	processUntil  = 0.65
	storeUntil    = 0.8
	stateUntil    = 0.85
	killUntil     = 0.9
)

// Run ends the machine. It returns only if Config.Reboot does.
func Run(cfg Config, r Request) {
	if cfg.Deadline == 0 {
		cfg.Deadline = DefaultDeadline
	}
	last := cfg.Reboot
	if last == nil {
		last = now
	}
	began := time.Now()
	at := func(share float64) time.Time { return began.Add(time.Duration(share * float64(cfg.Deadline))) }

	// sync(2) and umount(2) may hang with a disk. This does not.
	timer := time.AfterFunc(cfg.Deadline, func() { last(r.Action) })
	defer timer.Stop()

	cfg.Say("shutdown: %s (%s)", r.Action, r.Why)
	stage("services", cfg, at(servicesUntil), cfg.Services)
	stage("processes", cfg, at(processUntil), func(ctx context.Context) { terminate(ctx, cfg.Logger, unix.SIGTERM, before) })
	stage("datastore", cfg, at(storeUntil), func(ctx context.Context) { terminate(ctx, cfg.Logger, unix.SIGTERM, orderly) })
	stage("state", cfg, at(stateUntil), cfg.Save)
	stage("rest", cfg, at(killUntil), func(ctx context.Context) { terminate(ctx, cfg.Logger, unix.SIGKILL, everything) })
	unix.Sync()
	if err := cfg.Unmount(); err != nil {
		cfg.Say("shutdown: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	unix.Sync()
	cfg.Say("shutdown: %s now (%s)", r.Action, time.Since(began).Round(time.Millisecond))
	cfg.Flush()
	last(r.Action)
}

// stage runs f until it is done or its time is over; what hangs is left behind.
func stage(name string, cfg Config, until time.Time, f func(context.Context)) {
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		cfg.Say("shutdown: %s not done in time: going on", name)
	}
}

// now is reboot(2). Where the kernel refuses, its emergency key does it.
func now(a Action) {
	cmd, key := unix.LINUX_REBOOT_CMD_POWER_OFF, "o"
	if a == Reboot {
		cmd, key = unix.LINUX_REBOOT_CMD_RESTART, "b"
	}
	if err := unix.Reboot(cmd); err != nil {
		os.WriteFile("/proc/sysrq-trigger", []byte(key), 0)
	}
	select {} // the kernel takes it from here: PID 1 must not return
}
