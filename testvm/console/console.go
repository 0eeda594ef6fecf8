// Package console reads what a machine says on its serial port: it keeps all
// of it, lets others wait for a line, and reads the boot's steps out of it.
//
// The bytes come from package qemu by way of package machine; scenarios and
// the benchmark wait on lines. It never writes to the machine, and it never
// waits by the clock: every wait ends with a line, with the end of the machine
// or with its context.
package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Line is one line of the console, freed of control sequences.
type Line struct {
	At   time.Time
	Text string
}

// Console is the log of one machine, over all of its boots. It is safe for
// many readers.
type Console struct {
	log io.Writer

	mu      sync.Mutex // guards what follows
	lines   []Line
	running int           // Run calls under way
	changed chan struct{} // closed and replaced when a line comes or a Run ends
	follow  []func(Line)
}

// Mark is a place in the log. The zero Mark is its beginning.
type Mark int

// ErrEnded is returned by waits when the machine is gone and the line never came.
var ErrEnded = errors.New("the machine ended")

// New makes a console that copies every line to log as it comes.
func New(log io.Writer) *Console {
	return &Console{log: log, changed: make(chan struct{})}
}

// longest a line may be; what is longer is cut into several.
const longest = 8192

// Run reads r, one boot of the machine, until it ends.
func (c *Console) Run(r io.Reader) error {
	c.Start()
	return c.Read(r)
}

// Start says that a Read is about to begin, so that a wait which is faster
// than the reader's goroutine does not take the machine for gone.
func (c *Console) Start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running++
}

// Read does the work of Run after Start.
func (c *Console) Read(r io.Reader) error {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.running--
		c.wake()
	}()
	in := bufio.NewReaderSize(r, longest)
	for {
		raw, err := in.ReadSlice('\n')
		if len(raw) > 0 && (err == nil || errors.Is(err, bufio.ErrBufferFull) || len(clean(string(raw))) > 0) {
			if werr := c.add(Line{At: time.Now(), Text: clean(string(raw))}); werr != nil {
				return werr
			}
		}
		switch {
		case err == nil, errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil
		default:
			return fmt.Errorf("read console: %w", err)
		}
	}
}

// Note adds a line of our own, such as the beginning of another boot.
func (c *Console) Note(text string) error {
	return c.add(Line{At: time.Now(), Text: text})
}

func (c *Console) add(l Line) error {
	c.mu.Lock()
	c.lines = append(c.lines, l)
	follow := c.follow
	c.wake()
	c.mu.Unlock()
	for _, f := range follow {
		f(l)
	}
	if _, err := io.WriteString(c.log, l.Text+"\n"); err != nil {
		return fmt.Errorf("keep console: %w", err)
	}
	return nil
}

// wake needs mu held.
func (c *Console) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Follow calls f with every line from now on, in order, before any more is read.
func (c *Console) Follow(f func(Line)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.follow = append(c.follow[:len(c.follow):len(c.follow)], f)
}

// Mark is the place after the last line.
func (c *Console) Mark() Mark {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Mark(len(c.lines))
}

// Since are the lines after a mark.
func (c *Console) Since(m Mark) []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Line(nil), c.lines[min(int(m), len(c.lines)):]...)
}

// Tail is the last n lines as text, one after the other.
func (c *Console) Tail(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, l := range c.lines[max(0, len(c.lines)-n):] {
		b.WriteString("  | " + l.Text + "\n")
	}
	return b.String()
}

// tailLines is how much of the console an error of a wait shows.
const tailLines = 30

// Wait returns the first line after the mark that matches one of want. If it
// does not come, the error ends with the console's last lines.
func (c *Console) Wait(ctx context.Context, from Mark, want ...*regexp.Regexp) (Line, error) {
	for at := int(from); ; {
		c.mu.Lock()
		fresh, changed, running := c.lines[min(at, len(c.lines)):], c.changed, c.running
		c.mu.Unlock()
		for _, l := range fresh {
			for _, re := range want {
				if re.MatchString(l.Text) {
					return l, nil
				}
			}
		}
		at += len(fresh)
		var why error
		if running == 0 {
			why = ErrEnded
		} else {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				why = ctx.Err()
			}
		}
		return Line{}, fmt.Errorf("wait for %s on the console: %w; its last lines:\n%s", names(want), why, c.Tail(tailLines))
	}
}

func names(want []*regexp.Regexp) string {
	all := make([]string, len(want))
	for i, re := range want {
		all[i] = "`" + re.String() + "`"
	}
	return strings.Join(all, " or ")
}

// clean drops carriage returns and terminal sequences (ECMA-48: CSI, OSC and
// the two-character escapes), which firmware and boot loaders write in plenty.
func clean(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch ch := s[i]; {
		case ch == 0x1b && i+1 < len(s) && s[i+1] == '[':
			for i += 2; i < len(s) && (s[i] < 0x40 || s[i] > 0x7e); i++ {
			}
		case ch == 0x1b && i+1 < len(s) && s[i+1] == ']':
			for i += 2; i < len(s) && s[i] != 0x07; i++ {
			}
		case ch == 0x1b:
			i++
		case ch == '\t' || ch >= 0x20 && ch != 0x7f:
			b.WriteByte(ch)
		}
	}
	return strings.TrimRight(b.String(), " ")
}
