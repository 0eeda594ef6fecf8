package service

import "time"

// Backoff is the pause before a program is started again: it doubles from Min
// to Max with every end and begins anew after a run of Reset or more.
type Backoff struct {
	Min, Max, Reset time.Duration
	next            time.Duration
}

// DefaultBackoff suits a supervisor that comes up in a second.
func DefaultBackoff() Backoff {
	return Backoff{Min: 500 * time.Millisecond, Max: 30 * time.Second, Reset: time.Minute}
}

// After returns the pause after a run that lasted so long.
func (b *Backoff) After(ran time.Duration) time.Duration {
	if ran >= b.Reset {
		b.next = 0
	}
	pause := max(b.next, b.Min)
	b.next = min(2*pause, b.Max)
	return min(pause, b.Max)
}
