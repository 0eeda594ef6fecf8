// Package watchdog feeds the hardware watchdog while PID 1's parts make
// progress, so that a machine that hangs is reset by its hardware.
//
// Each part gives a check that comes back quickly when it works, typically by
// taking its lock or asking its goroutine. A check that does not come back, or
// returns an error, leaves the watchdog unfed. A machine without a watchdog is
// fine.
//
// Interface: Linux, Documentation/watchdog/watchdog-api.rst.
package watchdog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Device is the kernel's first watchdog.
const Device = "/dev/watchdog"

// DefaultTimeout is how long a hang may last.
const DefaultTimeout = 60 * time.Second

// Check is one part's proof of life.
type Check struct {
	Name string
	Do   func(ctx context.Context) error
}

// Config of the feeder.
type Config struct {
	Device  string
	Timeout time.Duration // zero means DefaultTimeout
	Checks  []Check
	Logger  *slog.Logger
}

// Run feeds until ctx ends and then disarms the watchdog, which the hardware
// may refuse: a shutdown that hangs is then cut short by it.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	f, err := os.OpenFile(cfg.Device, os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		cfg.Logger.Info("no watchdog device")
		return nil
	}
	if err != nil {
		return fmt.Errorf("open watchdog: %w", err)
	}
	defer f.Close()
	seconds := int(cfg.Timeout / time.Second)
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.WDIOC_SETTIMEOUT, seconds); err != nil {
		cfg.Logger.Warn("watchdog keeps its own timeout", "error", err)
	}
	if got, err := unix.IoctlGetInt(int(f.Fd()), unix.WDIOC_GETTIMEOUT); err == nil && got > 0 {
		cfg.Timeout = time.Duration(got) * time.Second
	}
	cfg.Logger.Info("watchdog armed", "timeout", cfg.Timeout)
	tick := time.NewTicker(cfg.Timeout / 4)
	defer tick.Stop()
	for {
		if err := feed(ctx, cfg, f); err != nil {
			cfg.Logger.Error("watchdog is not fed", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			// "V" is the magic close: stop the watchdog on close.
			if _, err := f.WriteString("V"); err != nil {
				return fmt.Errorf("disarm watchdog: %w", err)
			}
			return nil
		}
	}
}

type feeder interface{ Write([]byte) (int, error) }

// feed writes to the watchdog once every check has passed within a quarter of
// the timeout.
func feed(ctx context.Context, cfg Config, w feeder) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout/4)
	defer cancel()
	for _, c := range cfg.Checks {
		done := make(chan error, 1)
		go func() { done <- c.Do(ctx) }()
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
		case <-ctx.Done():
			return fmt.Errorf("%s: no progress within %s", c.Name, cfg.Timeout/4)
		}
	}
	if _, err := w.Write([]byte{0}); err != nil {
		return fmt.Errorf("feed watchdog: %w", err)
	}
	return nil
}
