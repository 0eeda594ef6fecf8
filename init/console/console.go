package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// queueLength is how many lines a slow console may fall behind before lines
// are dropped.
const queueLength = 512

// Console writes lines to all devices.
type Console struct {
	mu    sync.Mutex
	outs  []*output
	early []string // lines from before there was a device
}

type output struct {
	w       io.Writer
	lines   chan string
	pending sync.WaitGroup
	mu      sync.Mutex
	dropped int
}

// New makes a console that writes to w; Add brings more.
func New(ws ...io.Writer) *Console {
	c := &Console{}
	for _, w := range ws {
		c.Add(w)
	}
	return c
}

// Add begins to write to w as well. The goroutine lives as long as the machine.
func (c *Console) Add(w io.Writer) {
	o := &output{w: w, lines: make(chan string, queueLength)}
	go o.drain()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, line := range c.early {
		o.put(line)
	}
	c.outs = append(c.outs, o)
}

// Opened ends the wait for devices: what was kept for them is forgotten.
func (c *Console) Opened() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.early = nil
}

func (o *output) put(line string) {
	o.pending.Add(1)
	select {
	case o.lines <- line:
	default:
		o.pending.Done()
		o.mu.Lock()
		o.dropped++
		o.mu.Unlock()
	}
}

func (o *output) drain() {
	for line := range o.lines {
		o.mu.Lock()
		n := o.dropped
		o.dropped = 0
		o.mu.Unlock()
		if n > 0 {
			line = fmt.Sprintf("keelson: console: %d lines dropped\r\n", n) + line
		}
		// A console that went away is no reason to stop: nothing else to tell.
		io.WriteString(o.w, line)
		o.pending.Done()
	}
}

// Printf writes one line, "keelson: " before it.
func (c *Console) Printf(format string, args ...any) {
	c.Line("keelson: " + fmt.Sprintf(format, args...))
}

// Line writes one line as it is, without control characters: what a service
// or a document says must not steer the terminal.
func (c *Console) Line(s string) {
	s = strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s) + "\r\n"
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.outs) == 0 && len(c.early) < queueLength {
		c.early = append(c.early, s)
	}
	for _, o := range c.outs {
		o.put(s)
	}
}

// Flush waits until all lines are out, or for at most limit.
func (c *Console) Flush(limit time.Duration) {
	done := make(chan struct{})
	go func() {
		c.mu.Lock()
		outs := c.outs
		c.mu.Unlock()
		for _, o := range outs {
			o.pending.Wait()
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(limit):
	}
}

// Active reads the list of consoles that the kernel uses
// (/sys/class/tty/console/active: "tty0 ttyS0").
func Active(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("list consoles: %w", err)
	}
	return strings.Fields(string(b)), nil
}

// Open opens a console's device so that keys arrive one by one and it never
// becomes PID 1's controlling terminal.
func Open(device string) (*os.File, error) {
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open console: %w", err)
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return f, nil // not a terminal: hypervisor consoles need no mode
	}
	t.Lflag &^= unix.ICANON | unix.ECHO | unix.ISIG
	t.Iflag &^= unix.IXON // Ctrl-S must not stop the boot's messages
	t.Oflag &^= unix.OPOST
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t); err != nil {
		f.Close()
		return nil, fmt.Errorf("set up console %s: %w", device, err)
	}
	return f, nil
}

// Key is what one key does.
type Key struct {
	Key  byte
	Help string
	Do   func() []string // lines to show
}

// Keys reads r until it ends and answers keys; "h" is made here.
func (c *Console) Keys(ctx context.Context, r io.Reader, keys []Key) error {
	buf := make([]byte, 16)
	for ctx.Err() == nil {
		n, err := r.Read(buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read console: %w", err)
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		for _, b := range buf[:n] {
			c.press(b, keys)
		}
	}
	return nil
}

func (c *Console) press(b byte, keys []Key) {
	if b == 'h' || b == '?' {
		c.Printf("keys: h this help")
		for _, k := range keys {
			c.Printf("keys: %c %s", k.Key, k.Help)
		}
		return
	}
	for _, k := range keys {
		if k.Key == b {
			for _, line := range k.Do() {
				c.Printf("%s", line)
			}
		}
	}
}
