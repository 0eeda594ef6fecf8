package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"keelson/init/apply"
	"keelson/init/clock"
	"keelson/init/datadisk"
	"keelson/init/dmi"
	"keelson/init/identity"
	"keelson/init/layout"
	"keelson/init/netconfig"
	"keelson/init/source"
	"keelson/init/uevent"
	"keelson/init/userdata"

	"golang.org/x/sys/unix"
)

// The steps that find and follow the user-data.

// settle is how long a first boot without any user-data waits for a medium; a
// machine that has the copy of its last one does not wait.
const settle = 3 * time.Second

// userData collects, checks and applies the settings. A mistake in them is
// shown, and the step waits for a correction: a machine must not come up as
// something that nobody asked for.
func (m *machine) userData(ctx context.Context) error {
	sub := m.events.Subscribe("block")
	defer sub.Close()
	cfg := source.Config{
		Cmdline: m.rawCmdline, ESP: m.espDevice(), FwCfg: source.DefaultFwCfg,
		Stored: layout.UserData, LoadModule: m.load,
		NextDevice: func(ctx context.Context) error { return mediumChange(ctx, sub) },
		Settle:     settle,
		Machine:    dmi.Load(dmi.DefaultSys), Online: m.online, Secure: m.secure,
		Say: func(line string) { m.con.Printf("user-data: %s", line) },
	}
	report, toldCloud := source.Reporter(cfg.Machine), ""
	if kept(layout.UserData) {
		report = nil // the cloud has this machine already
	}
	told := ""
	for tried := false; ; {
		docs, err := source.Collect(ctx, cfg)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// The same documents again: some other device changed, or nothing did.
		if !tried || err != nil && err.Error() != told || !reflect.DeepEqual(docs, m.documents) {
			tried, m.documents, m.refusal = true, docs, nil
			if told = ""; err != nil {
				told = err.Error()
				m.refuse("%s", oneLine(err))
			}
			accepted := !errors.Is(err, source.ErrUnanswered) && m.accept(docs)
			switch {
			case accepted && m.live() && m.config.Install != nil:
				if m.install(ctx, docs, cfg.NextDevice) {
					<-ctx.Done() // the machine ends
					return nil
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
			case accepted && m.applySettings(ctx, cfg.NextDevice):
				m.report = source.Reporter(cfg.Machine)
				return source.Store(layout.UserData, docs)
			}
			m.con.Printf("waiting for corrected user-data")
		}
		m.tellFailure(ctx, report, &toldCloud)
		if err := correction(ctx, sub, source.Polled(cfg)); err != nil {
			return err
		}
	}
}

// kept says that an earlier boot has followed user-data.
func kept(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// refuse says on the console what is wrong, and keeps it for the cloud.
func (m *machine) refuse(format string, args ...any) {
	m.refusal = append(m.refusal, "user-data: "+fmt.Sprintf(format, args...))
	m.con.Printf("user-data: "+format, args...)
}

// pollPause is how often metadata is looked at that was refused: its correction
// shows by no event.
const pollPause = 30 * time.Second

// correction waits until the sources are worth another look.
func correction(ctx context.Context, sub *uevent.Subscription, poll bool) error {
	if !poll {
		return mediumChange(ctx, sub)
	}
	wait, cancel := context.WithTimeout(ctx, pollPause)
	defer cancel()
	if err := mediumChange(wait, sub); err != nil && ctx.Err() != nil {
		return err
	}
	return nil
}

// load loads a module from the root.
func (m *machine) load(names ...string) error {
	if m.loader == nil {
		return errors.New("the root has no modules for this kernel")
	}
	return m.loader.Load(names...)
}

// accept parses the documents and shows every problem with them.
func (m *machine) accept(docs userdata.Documents) bool {
	config, problems := userdata.Load(docs)
	plan, more := netconfig.Load(docs.Network)
	problems = append(problems, more...)
	var notes []string
	for _, p := range problems {
		if p.Fatal {
			m.refuse("%s", p)
		} else {
			m.con.Printf("user-data: %s", p)
		}
		notes = append(notes, "user-data: "+p.String())
	}
	m.mu.Lock()
	m.notes = notes
	m.mu.Unlock()
	if err := os.WriteFile(layout.UserDataNotes, []byte(strings.Join(append(notes, ""), "\n")), 0o644); err != nil {
		m.log.Warn("user-data notes", "error", err)
	}
	if userdata.Refused(problems) {
		return false
	}
	m.config, m.plan = config, plan
	return true
}

// applySettings puts the accepted settings in force; what does not take is
// shown like a mistake in the document, since that is what it is.
func (m *machine) applySettings(ctx context.Context, nextDevice func(context.Context) error) bool {
	c := apply.DefaultConfig()
	if err := m.load(m.config.Modules...); err != nil {
		m.refuse("modules: %v", err)
		return false
	}
	disks := datadisk.Config{
		Sys: "/sys", Dev: "/dev", Root: "/", System: m.systemDisk(), Tools: tools{m.reaper}, NextDevice: nextDevice, LoadModule: m.load,
		Say: func(line string) { m.con.Printf("user-data: %s", line) },
	}
	// Before the files, which may go to a data disk.
	if err := datadisk.Apply(ctx, disks, m.config.Storage); err != nil {
		for _, e := range parts(err) {
			m.refuse("%s", oneLine(e))
		}
		m.documents = userdata.Documents{} // a disk that appears makes the same ones worth another try
		return false
	}
	if err := apply.Apply(c, m.config); err != nil {
		for _, e := range parts(err) {
			m.refuse("%v", e)
		}
		return false
	}
	name, err := identity.EnsureHostname(layout.Hostname, m.config.Hostname, m.machineID)
	if err == nil {
		m.config.Hostname = name
		err = apply.Names(c, name, m.config.FQDN, m.machineID, unix.Sethostname)
	}
	if err != nil {
		m.refuse("hostname: %v", err)
	}
	return err == nil
}

// parts takes a joined error apart, so that each gets its own line.
func parts(err error) []error {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, parts(e)...)
	}
	return out
}

// mediumChange waits until a block device appears or changes its medium. A
// drive may report several changes for one medium: only the first after the
// sources were read matters, and reading them again costs nothing.
func mediumChange(ctx context.Context, sub *uevent.Subscription) error {
	for {
		ev, err := sub.Next(ctx)
		if err != nil {
			return fmt.Errorf("wait for corrected user-data: %w", err)
		}
		if ev.Action == "add" || ev.Action == "change" || ev.Action == uevent.Lost {
			return nil
		}
	}
}

// epoch is the build time of the image.
func (m *machine) epoch() (time.Time, error) {
	value, ok := m.cmdline.Get(layout.ParamEpoch)
	if !ok {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("kernel parameter %s=%s: want seconds since 1970", layout.ParamEpoch, value)
	}
	return time.Unix(seconds, 0), nil
}

func (m *machine) clockFloor(context.Context) error {
	epoch, err := m.epoch()
	if err != nil {
		return err
	}
	c, err := clock.New(clock.Config{Epoch: epoch, Logger: m.log})
	if err != nil {
		return err
	}
	return c.EnsureFloor()
}

func (m *machine) startClock(context.Context) error {
	epoch, err := m.epoch()
	if err != nil {
		return err
	}
	c, err := clock.New(clock.Config{
		Epoch: epoch, LastKnown: layout.LastTime, Logger: m.log,
		Servers: func() []string { return append(m.config.NTP.Servers, m.net.Status().NTP...) },
	})
	if err != nil {
		return err
	}
	if err := c.EnsureFloor(); err != nil {
		return err
	}
	if !m.config.NTP.Disabled {
		m.task("clock", c.Run)
	}
	return nil
}
