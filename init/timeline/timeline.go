// Package timeline records what the boot did and how long each step took.
//
// Package main of init adds an entry when a step ends; the console's status key
// prints the record, /run/keelson and /var/lib/keelson keep it for whoever asks
// later where the time went. Times are seconds since the kernel started, so
// that they compare with the kernel log. Nothing is measured here but the
// clock, and nothing is sent anywhere.
package timeline

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// SinceKernelStart is the time since the kernel started, suspended time
// included (CLOCK_BOOTTIME).
func SinceKernelStart() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // no Linux without it since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// Entry is one step. Times are seconds.
type Entry struct {
	Name    string  `json:"name"`
	Start   float64 `json:"start"`
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"`
}

// Timeline is the record of one boot. Its zero value is ready.
type Timeline struct {
	mu      sync.Mutex
	entries []Entry
	total   float64
}

// Add records a step.
func (t *Timeline) Add(name string, start, took time.Duration, err error) {
	e := Entry{Name: name, Start: round(start), Seconds: round(took)}
	if err != nil {
		e.Error = err.Error()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries = append(t.entries, e)
}

// Complete records when the last own step ended.
func (t *Timeline) Complete(at time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total = round(at)
}

func round(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond)) / float64(time.Second)
}

// Render makes the JSON document.
func (t *Timeline) Render() ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, err := json.MarshalIndent(struct {
		Steps    []Entry `json:"steps"`
		Complete float64 `json:"complete,omitempty"`
	}{t.entries, t.total}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("render timeline: %w", err)
	}
	return append(b, '\n'), nil
}

// Lines renders the record for people, one line a step.
func (t *Timeline) Lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for _, e := range t.entries {
		line := fmt.Sprintf("%8.3f s %8.0f ms  %s", e.Start, e.Seconds*1000, e.Name)
		if e.Error != "" {
			line += ": " + e.Error
		}
		out = append(out, line)
	}
	if t.total > 0 {
		out = append(out, fmt.Sprintf("%8.3f s             boot complete", t.total))
	}
	return out
}
