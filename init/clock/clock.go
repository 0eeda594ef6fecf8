package clock

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultServers are asked where neither user-data nor DHCP names a server.
func DefaultServers() []string { return []string{"time.cloudflare.com"} }

// DefaultRTC is the hardware clock.
const DefaultRTC = "/dev/rtc0"

// Config says what time cannot be before, and who knows it better.
type Config struct {
	Epoch     time.Time       // build time of the image
	LastKnown string          // file whose modification time is the last time known; "" for none
	Servers   func() []string // asked anew before every exchange; DefaultServers where it is empty
	System    System          // nil for the machine's own clocks
	Logger    *slog.Logger
}

// System is the machine's clocks.
type System interface {
	Now() time.Time
	Step(time.Time) error        // set the system clock
	Slew(time.Duration) error    // let it run faster or slower until the offset is gone
	ReadRTC() (time.Time, error) // hardware clock, in UTC
	WriteRTC(time.Time) error    // likewise
}

// Clock keeps the system clock.
type Clock struct {
	cfg Config
	sys System
}

// New checks the settings.
func New(cfg Config) (*Clock, error) {
	if cfg.Logger == nil {
		return nil, errors.New("clock: no logger")
	}
	c := &Clock{cfg: cfg, sys: cfg.System}
	if c.sys == nil {
		c.sys = machine{rtc: DefaultRTC}
	}
	return c, nil
}

// EnsureFloor steps the system clock forward, never back, to the newest of what
// is known without a network. The kernel may not have read the hardware clock,
// because its driver was a module.
func (c *Clock) EnsureFloor() error {
	now := c.sys.Now()
	floor, from := c.cfg.Epoch, "image"
	if rtc, err := c.sys.ReadRTC(); err == nil && rtc.After(floor) && plausible(rtc, c.cfg.Epoch) {
		floor, from = rtc, "hardware clock"
	}
	last, err := c.lastKnown()
	if last.After(floor) && plausible(last, c.cfg.Epoch) {
		floor, from = last, "last known time"
	}
	// The hardware clock has whole seconds; a second back and forth is nothing.
	if floor.Sub(now) > time.Second {
		if stepErr := c.sys.Step(floor); stepErr != nil {
			return errors.Join(err, fmt.Errorf("step clock to %s of %s: %w", floor.UTC().Format(time.RFC3339), from, stepErr))
		}
		c.cfg.Logger.Info("clock: stepped to the floor", "from", now.UTC(), "to", floor.UTC(), "source", from)
	}
	return err
}

// plausible rejects a time so far ahead that a battery must be dead or a disk
// damaged: certificates of the cluster would be over.
func plausible(t, epoch time.Time) bool {
	return epoch.IsZero() || t.Before(epoch.AddDate(25, 0, 0))
}

func (c *Clock) lastKnown() (time.Time, error) {
	if c.cfg.LastKnown == "" {
		return time.Time{}, nil
	}
	st, err := os.Stat(c.cfg.LastKnown)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("last known time: %w", err)
	}
	return st.ModTime(), nil
}

// keep writes down the time: on disk by the modification time of an empty file,
// which needs no format that could be damaged.
func (c *Clock) keep() error {
	if c.cfg.LastKnown == "" {
		return nil
	}
	f, err := os.OpenFile(c.cfg.LastKnown, os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return fmt.Errorf("keep time: %w", err)
	}
	now := c.sys.Now()
	if err := errors.Join(os.Chtimes(c.cfg.LastKnown, now, now), f.Close()); err != nil {
		return fmt.Errorf("keep time: %w", err)
	}
	return nil
}
