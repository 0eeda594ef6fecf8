package clock

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"
)

// Packet layout and checks: RFC 4330 4 and 5, RFC 5905 7.3.
const (
	packetSize = 48
	// eraSeconds lie between 1900, where NTP counts from, and 1970.
	eraSeconds = 2208988800
	answerWait = 3 * time.Second
	maxTrip    = 3 * time.Second
	maxStratum = 15
)

// ErrBusy is a server's wish to be asked less (kiss of death).
var errBusy = errors.New("the server wants to be left alone")

// query asks one server and returns how far the system clock is behind it.
func query(ctx context.Context, server string, now func() time.Time) (offset time.Duration, err error) {
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(server, "123")
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", server)
	if err != nil {
		return 0, fmt.Errorf("ask time server: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()

	// The transmit timestamp is a random number: the answer must repeat it, so
	// that nobody who cannot see the question can answer it.
	var request [packetSize]byte
	request[0] = 4<<3 | 3 // version 4, client
	if _, err := rand.Read(request[40:]); err != nil {
		return 0, fmt.Errorf("ask time server: %w", err)
	}
	sent := now()
	// The monotonic clock measures the trip, for the wall clock may be stepped.
	if _, err := conn.Write(request[:]); err != nil {
		return 0, fmt.Errorf("ask time server %s: %w", server, err)
	}
	var answer [512]byte
	for {
		n, err := conn.Read(answer[:])
		if err != nil {
			return 0, fmt.Errorf("no answer from time server %s: %w", server, err)
		}
		trip := now().Sub(sent)
		received, transmitted, err := parseAnswer(answer[:n], [8]byte(request[40:48]), sent)
		if errors.Is(err, errForeign) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("time server %s: %w", server, err)
		}
		if trip < 0 || trip > maxTrip || transmitted.Before(received) {
			return 0, fmt.Errorf("time server %s: a trip of %s says nothing", server, trip)
		}
		// RFC 4330 5: ((T2 - T1) + (T3 - T4)) / 2.
		return (received.Sub(sent) + transmitted.Sub(sent.Add(trip))) / 2, nil
	}
}

var errForeign = errors.New("not the answer to our question")

// parseAnswer checks a packet and returns when the server got the question and
// when it answered. near says which era of NTP's 136 years is meant.
func parseAnswer(b []byte, nonce [8]byte, near time.Time) (received, transmitted time.Time, err error) {
	fail := func(err error) (time.Time, time.Time, error) { return time.Time{}, time.Time{}, err }
	if len(b) < packetSize || [8]byte(b[24:32]) != nonce {
		return fail(errForeign)
	}
	leap, mode, stratum := b[0]>>6, b[0]&7, b[1]
	switch {
	case mode != 4:
		return fail(fmt.Errorf("answered in mode %d, want 4 (server)", mode))
	case stratum == 0:
		return fail(fmt.Errorf("%w (%q)", errBusy, b[12:16]))
	case leap == 3 || stratum > maxStratum:
		return fail(errors.New("does not know the time itself"))
	}
	received, transmitted = stamp(b[32:40], near), stamp(b[40:48], near)
	if received.IsZero() || transmitted.IsZero() {
		return fail(errors.New("answered without a time"))
	}
	return received, transmitted, nil
}

// stamp decodes NTP's 32 bits of seconds and 32 bits of fraction in the era
// that is nearest to a time known roughly (RFC 5905 6, figure 4).
func stamp(b []byte, near time.Time) time.Time {
	v := binary.BigEndian.Uint64(b)
	if v == 0 {
		return time.Time{}
	}
	seconds := int64(v>>32) - eraSeconds
	const era = 1 << 32
	for near.Unix()-seconds > era/2 {
		seconds += era
	}
	return time.Unix(seconds, int64((v&0xffffffff)*1e9>>32))
}
