package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"keelson/init/blockdev"
	"keelson/init/console"
	"keelson/init/devmapper"
	"keelson/init/kernel"
	"keelson/init/kmsg"
	"keelson/init/layout"
	"keelson/init/metadata"
	"keelson/init/netconfig"
	"keelson/init/network"
	"keelson/init/sequence"
	"keelson/init/service"
	"keelson/init/shutdown"
	"keelson/init/timeline"
	"keelson/init/uevent"
	"keelson/init/userdata"
)

// machine is what the steps of the boot hand to each other. A field is written
// by the step that its comment names and read only by steps after that one.
type machine struct {
	con      *console.Console
	record   *kmsg.Writer
	log      *slog.Logger
	timeline *timeline.Timeline
	reaper   *service.Reaper
	requests chan shutdown.Request
	faults   chan error
	logsOn   atomic.Bool // every line of a service goes to the console

	halted bool // only run reads and writes it

	// ctx ends when the machine does; tasks are what runs until then.
	ctx  context.Context
	stop context.CancelFunc

	rawCmdline string             // kernel file systems
	cmdline    kernel.Cmdline     // kernel file systems
	events     *uevent.Listener   // kernel file systems
	stopBoot   func()             // boot modules
	verity     layout.Verity      // boot medium
	root       blockdev.Partition // boot medium
	disk       *blockdev.Disk     // partitions; nil where the machine runs live
	statePart  blockdev.Partition // state; zero where it is in memory
	medium     blockdev.Partition // boot medium, where it is a CD or stick that runs live
	esp        string             // user-data
	rootDevice string             // verified root
	loader     *kernel.Loader     // modules
	machineID  string             // identity
	config     *userdata.Config   // user-data
	documents  userdata.Documents // user-data
	plan       netconfig.Plan     // user-data
	net        *network.Network   // user-data, where a source needs it, or network
	netPlan    netconfig.Plan     // as net
	endNetwork func()             // as net
	report     cloudReport        // user-data; nil where no cloud waits for one
	refusal    []string           // user-data: what was said against the last try

	mu       sync.Mutex
	services map[string]*supervised
	logs     []io.Closer // on STATE
	rootName string      // of the root partition, for messages from any time
	rootDev  string      // its MAJOR:MINOR
	notes    []string    // what was said of the user-data
}

// cloudReport tells a cloud that the machine is up, or why not.
type cloudReport = func(ctx context.Context, c *metadata.Client, failure string) error

// supervised is a service, the way to stop it, and its end.
type supervised struct {
	*service.Service
	stop context.CancelFunc
	done chan struct{}
}

func newMachine() *machine {
	record := kmsg.NewWriter(io.Discard)
	ctx, stop := context.WithCancel(context.Background())
	return &machine{
		con: console.New(), record: record, log: kmsg.Logger(record), timeline: &timeline.Timeline{},
		reaper: service.NewReaper(), requests: make(chan shutdown.Request, 8), faults: make(chan error, 8),
		services: map[string]*supervised{}, ctx: ctx, stop: stop,
	}
}

// rebootDelay leaves time to read why.
const rebootDelay = 30 * time.Second

// run is the life of PID 1. It does not return.
func (m *machine) run() {
	signals := shutdown.Catch()
	m.task("signals", func(ctx context.Context) error { shutdown.Signals(ctx, signals, m.requests); return nil })
	m.task("children", m.reaper.Run)

	bootCtx, cancelBoot := context.WithCancel(m.ctx)
	booted := make(chan error, 1)
	go func() { booted <- sequence.Run(bootCtx, m.boot(), m.observe) }()

	var timeout <-chan time.Time
	for {
		select {
		case err := <-booted:
			booted = nil
			if err == nil {
				m.complete()
			} else if bootCtx.Err() == nil && m.fail(err) == sequence.Reboot {
				timeout = time.After(rebootDelay)
			}
		case err := <-m.faults:
			cancelBoot()
			m.halt(err)
		case <-timeout:
			m.end(shutdown.Request{Action: shutdown.Reboot, Why: "the boot did not succeed"})
		case r := <-m.requests:
			cancelBoot()
			m.end(r)
		}
	}
}

// observe writes one step down and says it.
func (m *machine) observe(step string, start time.Time, took time.Duration, err error) {
	m.timeline.Add(step, timeline.SinceKernelStart()-time.Since(start), took, err)
	if err != nil {
		m.con.Printf("boot: %s: %s", step, oneLine(err))
		m.log.Error("boot step", "step", step, "dur", took, "error", err)
		return
	}
	m.con.Printf("boot: %s: ok (%d ms)", step, took.Milliseconds())
	m.log.Info("boot step", "step", step, "dur", took)
}

// oneLine writes joined errors side by side: a message is one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func (m *machine) complete() {
	at := timeline.SinceKernelStart()
	m.timeline.Complete(at)
	m.con.Printf("boot: complete in %.3f s", at.Seconds())
	m.log.Info("boot complete", "seconds", at.Seconds())
	m.saveTimeline()
	if m.config.Power.Action != "" {
		m.task("power_state", m.powerState)
	}
}

// fail answers a failed step with its policy.
func (m *machine) fail(err error) sequence.Policy {
	if damage := m.rootDamage(); damage != nil {
		m.halt(damage)
		return sequence.Halt
	}
	var f *sequence.Failure
	var p *sequence.Panic
	if errors.As(err, &p) {
		m.log.Error("panic", "value", p.Value, "stack", string(p.Stack))
	}
	if errors.Is(err, blockdev.ErrRefused) {
		m.halt(err) // another try reads the same disk
		return sequence.Halt
	}
	if errors.As(err, &f) && (f.Policy == sequence.Reboot || p != nil) {
		m.con.Printf("halted: %s", oneLine(err))
		m.con.Printf("reboot in %s", rebootDelay)
		return sequence.Reboot
	}
	m.halt(err)
	return sequence.Halt
}

// halt stops what runs and says why. The machine stays reachable: keys, power
// button and signals work.
func (m *machine) halt(why error) {
	if m.halted {
		m.log.Error("halted", "error", why) // the first reason is the one to read
		return
	}
	m.halted = true
	m.con.Printf("halted: %s", oneLine(why))
	m.log.Error("halted", "error", why)
	ctx, cancel := context.WithTimeout(context.Background(), shutdown.DefaultDeadline/2)
	defer cancel()
	m.stopServices(ctx)
	m.saveTimeline()
}

// rootDamage looks into the kernel log for a damaged block of the root.
func (m *machine) rootDamage() error {
	r, ok := kmsg.Find(func(r kmsg.Record) bool { return m.damage(r) != nil })
	if !ok {
		return nil
	}
	return m.damage(r)
}

// damage is the error that a record of the kernel log stands for, if it is
// dm-verity's about our root. Programs can write to the log, too: theirs do not
// count.
func (m *machine) damage(r kmsg.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	device, what, ok := devmapper.Corruption(r.Text)
	if !ok || !r.Kernel || m.rootDev == "" || device != m.rootDev {
		return nil
	}
	return fmt.Errorf("root partition %s is damaged: %s: nothing of it was executed; write the image to the disk again", m.rootName, what)
}

// task runs f beside everything else until the machine ends. Its failure, a
// panic included, is worth a line and never the machine.
func (m *machine) task(name string, f func(context.Context) error) {
	go func() {
		defer func() {
			if v := recover(); v != nil {
				m.con.Printf("%s: panic: %v", name, v)
				m.log.Error("panic", "task", name, "value", v)
			}
		}()
		if err := f(m.ctx); err != nil && m.ctx.Err() == nil {
			m.con.Printf("%s: %v", name, err)
			m.log.Error("task ended", "task", name, "error", err)
		}
	}()
}

// saveTimeline keeps the record where it can be read; STATE may not be there.
func (m *machine) saveTimeline() {
	b, err := m.timeline.Render()
	if err != nil {
		m.log.Error("timeline", "error", err)
		return
	}
	for _, path := range []string{layout.TimelineRun, layout.TimelineState} {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			m.log.Warn("timeline", "error", err)
		}
	}
}
