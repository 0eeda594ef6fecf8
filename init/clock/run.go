package clock

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Timing: soon until a server has answered, then rarely (RFC 4330 10 asks for
// no less than 15 s; public servers for much more).
const (
	firstPause = 2 * time.Second
	retryPause = 64 * time.Second
	pollPause  = 17 * time.Minute
	// stepAbove is the offset from which slewing would take too long: the kernel
	// corrects half a millisecond in a second (adjtimex(2)).
	stepAbove = 400 * time.Millisecond
)

// Run keeps the time until ctx ends. A network that is absent, a silent server
// and a wrong name cost nothing but a line in the log.
func (c *Clock) Run(ctx context.Context) error {
	pause := firstPause
	for quiet := false; ; {
		err := c.sync(ctx)
		switch {
		case ctx.Err() != nil:
			return c.keep()
		case err == nil:
			pause, quiet = pollPause, false
		default:
			if !quiet { // one line until it works again
				c.cfg.Logger.Warn("clock: no time from the network yet", "error", err)
				quiet = true
			}
			pause = min(2*pause, retryPause)
		}
		if err := c.keep(); err != nil {
			c.cfg.Logger.Warn("clock: keep", "error", err)
		}
		timer := time.NewTimer(pause + rand.N(pause/8))
		select {
		case <-ctx.Done():
			timer.Stop()
			return c.keep()
		case <-timer.C:
		}
	}
}

// sync asks servers in turn until one answers, and corrects the clocks.
func (c *Clock) sync(ctx context.Context) error {
	var servers []string
	if c.cfg.Servers != nil {
		servers = c.cfg.Servers()
	}
	if len(servers) == 0 {
		servers = DefaultServers()
	}
	var errs []error
	for _, server := range servers {
		offset, err := query(ctx, server, c.sys.Now)
		if err == nil {
			err = c.correct(server, offset)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *Clock) correct(server string, offset time.Duration) error {
	now := c.sys.Now()
	if now.Add(offset).Before(c.cfg.Epoch) {
		return errors.New("time server " + server + ": its time is before this image was built")
	}
	if !plausible(now.Add(offset), c.cfg.Epoch) {
		return errors.New("time server " + server + ": its time is decades after this image was built")
	}
	if offset.Abs() <= stepAbove {
		if err := c.sys.Slew(offset); err != nil {
			return err
		}
	} else {
		if err := c.sys.Step(now.Add(offset)); err != nil {
			return err
		}
		c.cfg.Logger.Info("clock: stepped", "server", server, "offset", offset)
	}
	if err := c.sys.WriteRTC(c.sys.Now()); err != nil {
		c.cfg.Logger.Debug("clock: hardware clock", "error", err) // many machines have none
	}
	return nil
}
