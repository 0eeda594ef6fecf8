// Package kmsg is PID 1's own log: the kernel's ring, and a bounded file once
// there is a place for one.
//
// Writer is given to log/slog's text handler; Watch reads what the kernel and
// everybody else wrote. Nothing here goes to the console: package console does.
//
// Format: Linux, Documentation/ABI/testing/dev-kmsg.
package kmsg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Device is the kernel log.
const Device = "/dev/kmsg"

// maxRecord is the kernel's limit of one record (LOG_LINE_MAX).
const maxRecord = 976

// Writer writes lines to the kernel log and to a file.
type Writer struct {
	mu   sync.Mutex
	ring io.Writer
	file io.Writer // nil until there is a place for one
}

// NewWriter writes to ring until SetRing names another.
func NewWriter(ring io.Writer) *Writer { return &Writer{ring: ring} }

// SetRing changes the place of the kernel log, usually to the opened Device.
func (w *Writer) SetRing(ring io.Writer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ring = ring
}

// SetFile adds a file; nil takes it away.
func (w *Writer) SetFile(f io.Writer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.file = f
}

// Write takes one line of slog's text handler. Levels go no higher than
// warning, since the kernel itself shows errors on the console, where the boot
// says everything already in its own words.
func (w *Writer) Write(b []byte) (int, error) {
	level := "<6>"
	switch {
	case bytes.HasPrefix(b, []byte("level=DEBUG")):
		level = "<7>"
	case bytes.HasPrefix(b, []byte("level=WARN")), bytes.HasPrefix(b, []byte("level=ERROR")):
		level = "<4>"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	line := append([]byte(level+"keelson: "), b[:min(len(b), maxRecord)]...)
	_, err := w.ring.Write(line)
	if w.file != nil {
		stamp := time.Now().UTC().Format("2006-01-02T15:04:05.000Z ")
		_, ferr := w.file.Write(append([]byte(stamp), b...))
		err = errors.Join(err, ferr)
	}
	return len(b), err
}

// Logger is a logger on w. The kernel stamps its records itself.
func Logger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		Level: slog.LevelInfo,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

// Record is one record of the kernel log.
type Record struct {
	Kernel bool // written by the kernel, not by a program
	Text   string
}

// ParseRecord reads "PRIORITY,SEQUENCE,TIME,FLAGS[,...];TEXT" and drops the
// continuation lines that follow.
func ParseRecord(b []byte) (Record, error) {
	head, rest, ok := strings.Cut(string(b), ";")
	priority, _, more := strings.Cut(head, ",")
	if !ok || !more {
		return Record{}, fmt.Errorf("kernel log record %.40q: want PRIORITY,SEQUENCE,TIME,FLAGS;TEXT", b)
	}
	var p int
	if _, err := fmt.Sscanf(priority, "%d", &p); err != nil || p < 0 {
		return Record{}, fmt.Errorf("kernel log record %.40q: priority is not a number", b)
	}
	text, _, _ := strings.Cut(rest, "\n")
	return Record{Kernel: p>>3 == 0, Text: text}, nil // facility 0: the kernel
}

// Find returns the first record up to now that match takes.
func Find(match func(Record) bool) (Record, bool) {
	fd, err := unix.Open(Device, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return Record{}, false
	}
	defer unix.Close(fd)
	buf := make([]byte, 8<<10)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return Record{}, false // EAGAIN: the newest was read
		}
		if r, perr := ParseRecord(buf[:n]); perr == nil && match(r) {
			return r, true
		}
	}
}

// Watch hands every record, from the oldest on, to see until ctx ends.
func Watch(ctx context.Context, see func(Record)) error {
	f, err := os.Open(Device)
	if err != nil {
		return fmt.Errorf("open kernel log: %w", err)
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	buf := make([]byte, 8<<10)
	for {
		n, err := f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EPIPE):
			continue // records were overwritten before they were read
		case err != nil:
			return fmt.Errorf("read kernel log: %w", err)
		}
		if r, err := ParseRecord(buf[:n]); err == nil {
			see(r)
		}
	}
}
