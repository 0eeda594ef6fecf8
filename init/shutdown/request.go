package shutdown

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"keelson/init/uevent"

	"golang.org/x/sys/unix"
)

// Action is how the machine is to end.
type Action int

// The actions.
const (
	PowerOff Action = iota
	Reboot
)

func (a Action) String() string {
	if a == Reboot {
		return "reboot"
	}
	return "power off"
}

// Request is one wish to end the machine.
type Request struct {
	Action Action
	Why    string
}

// Catch begins to take the signals that mean an end; from here on none is lost.
func Catch() <-chan os.Signal {
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, unix.SIGINT, unix.SIGTERM, unix.SIGPWR, unix.SIGUSR2, unix.SIGHUP)
	return ch
}

// Signals turns the signals of Catch into requests until ctx ends: SIGINT is
// Ctrl-Alt-Del once CaptureCtrlAltDel was called; SIGTERM, SIGPWR and SIGUSR2
// power off (signal(7) and SysV init's habit), SIGHUP reboots.
func Signals(ctx context.Context, ch <-chan os.Signal, out chan<- Request) {
	for {
		select {
		case s := <-ch:
			r := Request{PowerOff, unix.SignalName(s.(unix.Signal))}
			switch s {
			case unix.SIGINT:
				r = Request{Reboot, "Ctrl-Alt-Del"}
			case unix.SIGHUP:
				r.Action = Reboot
			}
			send(ctx, out, r)
		case <-ctx.Done():
			return
		}
	}
}

func send(ctx context.Context, out chan<- Request, r Request) {
	select {
	case out <- r:
	case <-ctx.Done():
	}
}

// CaptureCtrlAltDel makes the kernel send SIGINT to PID 1 in place of a reboot
// on the spot.
func CaptureCtrlAltDel() error {
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
		return fmt.Errorf("capture Ctrl-Alt-Del: %w", err)
	}
	return nil
}

// Codes of include/uapi/linux/input-event-codes.h.
const (
	evKey      = 1
	keyPower   = 116
	keyRestart = 0x198
)

// Buttons listens on every input device that has a power button, now and when
// one appears, until ctx ends.
func Buttons(ctx context.Context, sub *uevent.Subscription, out chan<- Request, log *slog.Logger) {
	listening := map[string]bool{}
	for {
		nodes, err := buttonNodes("/sys/class/input")
		if err != nil {
			log.Warn("power buttons", "error", err)
		}
		files, err := openNew(nodes, listening)
		if err != nil {
			log.Warn("power button", "error", err)
		}
		for _, f := range files {
			go func() {
				if err := listen(ctx, f, out); err != nil && ctx.Err() == nil {
					log.Warn("power button", "device", f.Name(), "error", err)
				}
			}()
		}
		ev, err := sub.Next(ctx)
		if err != nil {
			return
		}
		if name := filepath.Base(ev.Devpath); ev.Action == "remove" {
			delete(listening, "/dev/input/"+name)
		}
	}
}

// openNew opens the nodes that nobody listens to yet. /sys shows a device before
// /dev has its node: such a one is left for the event that tells of it, which
// comes after both (Linux drivers/base/core.c, device_add).
func openNew(nodes []string, listening map[string]bool) (files []*os.File, err error) {
	var errs []error
	for _, node := range nodes {
		if listening[node] {
			continue
		}
		f, err := os.Open(node)
		if err != nil {
			errs = append(errs, fmt.Errorf("open button: %w", err))
			continue
		}
		listening[node] = true
		files = append(files, f)
	}
	return files, errors.Join(errs...)
}

// buttonNodes lists the event devices with a power or restart key.
func buttonNodes(class string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(class, "event*", "device", "capabilities", "key"))
	if err != nil {
		return nil, fmt.Errorf("list input devices: %w", err)
	}
	var out []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if hasKey(string(b), keyPower) || hasKey(string(b), keyRestart) {
			event := filepath.Base(strings.TrimSuffix(file, "/device/capabilities/key"))
			out = append(out, "/dev/input/"+event)
		}
	}
	return out, nil
}

// hasKey reads the bitmap of a capabilities file: words of the kernel's long in
// hexadecimal, the highest first (drivers/input/input.c).
func hasKey(bitmap string, key int) bool {
	words := strings.Fields(bitmap)
	i := len(words) - 1 - key/64
	if i < 0 {
		return false
	}
	w, err := strconv.ParseUint(words[i], 16, 64)
	return err == nil && w>>(key%64)&1 == 1
}

// inputEventSize is struct input_event on 64-bit machines: two longs of time,
// type, code, value.
const inputEventSize = 24

func listen(ctx context.Context, f *os.File, out chan<- Request) error {
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	defer f.Close()
	buf := make([]byte, 64*inputEventSize)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return fmt.Errorf("read button: %w", err)
		}
		for b := buf[:n]; len(b) >= inputEventSize; b = b[inputEventSize:] {
			if r, ok := buttonRequest(b); ok {
				send(ctx, out, r)
			}
		}
	}
}

func buttonRequest(ev []byte) (Request, bool) {
	le := binary.NativeEndian
	if le.Uint16(ev[16:]) != evKey || le.Uint32(ev[20:]) != 1 { // 1: pressed
		return Request{}, false
	}
	switch le.Uint16(ev[18:]) {
	case keyPower:
		return Request{PowerOff, "power button"}, true
	case keyRestart:
		return Request{Reboot, "restart key"}, true
	}
	return Request{}, false
}
