package clock

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fake is a System whose system clock runs with the real one, shifted.
type fake struct {
	mu    sync.Mutex
	shift time.Duration
	rtc   time.Time
	slews []time.Duration
	steps int
	fails error
}

func at(now, rtc time.Time) *fake { return &fake{shift: time.Until(now), rtc: rtc} }

func (f *fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Add(f.shift)
}

func (f *fake) Step(t time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shift = time.Until(t)
	f.steps++
	return f.fails
}

func (f *fake) Slew(d time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slews = append(f.slews, d)
	return nil
}

func (f *fake) ReadRTC() (time.Time, error) {
	if f.rtc.IsZero() {
		return time.Time{}, errors.New("no hardware clock")
	}
	return f.rtc, nil
}

func (f *fake) WriteRTC(t time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rtc = t
	return nil
}

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func clock(t *testing.T, sys System, last string, servers ...string) *Clock {
	t.Helper()
	c, err := New(Config{Epoch: epoch, LastKnown: last, System: sys, Servers: func() []string { return servers },
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEnsureFloor(t *testing.T) {
	day := 24 * time.Hour
	tests := []struct {
		name           string
		now, rtc, last time.Time
		want           time.Time
		steps          int
	}{
		{"no clock at all", time.Unix(0, 0), time.Time{}, time.Time{}, epoch, 1},
		{"dead battery", time.Unix(0, 0), time.Unix(0, 0), time.Time{}, epoch, 1},
		{"hardware clock", time.Unix(0, 0), epoch.Add(day), time.Time{}, epoch.Add(day), 1},
		{"last known time", time.Unix(0, 0), epoch.Add(day), epoch.Add(2 * day), epoch.Add(2 * day), 1},
		{"damaged last time", epoch, time.Time{}, epoch.AddDate(90, 0, 0), epoch, 0},
		{"hardware clock far ahead", epoch.Add(day), epoch.AddDate(60, 0, 0), time.Time{}, epoch.Add(day), 0},
		{"never back", epoch.Add(3 * day), epoch.Add(day), epoch.Add(2 * day), epoch.Add(3 * day), 0},
		{"right already", epoch.Add(day), epoch.Add(day), time.Time{}, epoch.Add(day), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			last := filepath.Join(t.TempDir(), "time")
			if !tt.last.IsZero() {
				if err := errors.Join(os.WriteFile(last, nil, 0o644), os.Chtimes(last, tt.last, tt.last)); err != nil {
					t.Fatal(err)
				}
			}
			sys := at(tt.now, tt.rtc)
			if err := clock(t, sys, last).EnsureFloor(); err != nil {
				t.Fatal(err)
			}
			if got := sys.Now().Sub(tt.want); got < 0 || got > time.Minute || sys.steps != tt.steps {
				t.Errorf("got %s and %d steps, want %s and %d", sys.Now().UTC(), sys.steps, tt.want, tt.steps)
			}
		})
	}
}

func TestEnsureFloorTellsWhy(t *testing.T) {
	sys := at(time.Unix(0, 0), time.Time{})
	sys.fails = unix.EPERM
	err := clock(t, sys, "").EnsureFloor()
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "step clock to 2026-11-01") {
		t.Errorf("got %v", err)
	}
}

// ntpServer answers with its time; edit changes the answer before it is sent.
func ntpServer(t *testing.T, now func() time.Time, edit func([]byte)) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if n < packetSize || b[0]&7 != 3 {
				t.Errorf("got a question of %d bytes in mode %d", n, b[0]&7)
				return
			}
			answer := make([]byte, packetSize)
			answer[0], answer[1] = 4<<3|4, 2
			copy(answer[24:32], b[40:48])
			put(answer[32:], now())
			put(answer[40:], now())
			if edit != nil {
				edit(answer)
			}
			if _, err := conn.WriteTo(answer, from); err != nil {
				return
			}
		}
	}()
	return conn.LocalAddr().String()
}

func put(b []byte, t time.Time) {
	binary.BigEndian.PutUint32(b, uint32(t.Unix()+eraSeconds))
	binary.BigEndian.PutUint32(b[4:], uint32(uint64(t.Nanosecond())<<32/1e9))
}

func TestSyncStepsFar(t *testing.T) {
	right := epoch.AddDate(0, 1, 0)
	source := at(right, time.Time{})
	sys := at(epoch, time.Time{})
	if err := clock(t, sys, "", ntpServer(t, source.Now, nil)).sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if off := sys.Now().Sub(source.Now()).Abs(); off > 500*time.Millisecond || sys.steps != 1 {
		t.Errorf("got %s off after %d steps", off, sys.steps)
	}
	if off := sys.rtc.Sub(right).Abs(); off > time.Minute {
		t.Errorf("hardware clock: got %s", sys.rtc)
	}
}

func TestSyncSlewsNear(t *testing.T) {
	sys := at(epoch.Add(time.Hour), time.Time{})
	ahead := func() time.Time { return sys.Now().Add(100 * time.Millisecond) }
	if err := clock(t, sys, "", ntpServer(t, ahead, nil)).sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(sys.slews) != 1 || sys.steps != 0 || sys.slews[0] < 50*time.Millisecond || sys.slews[0] > 150*time.Millisecond {
		t.Errorf("got slews %v and %d steps, want one of 100 ms", sys.slews, sys.steps)
	}
}

func TestSyncTriesTheNextServer(t *testing.T) {
	sys := at(epoch.Add(time.Hour), time.Time{})
	bad := ntpServer(t, sys.Now, func(b []byte) { b[1] = 0; copy(b[12:], "RATE") })
	good := ntpServer(t, sys.Now, nil)
	if err := clock(t, sys, "", bad, good).sync(t.Context()); err != nil || len(sys.slews) != 1 {
		t.Errorf("got %v and slews %v", err, sys.slews)
	}
}

func TestSyncRefuses(t *testing.T) {
	tests := []struct {
		name string
		now  time.Time
		edit func([]byte)
		want string
	}{
		{"kiss of death", epoch, func(b []byte) { b[1] = 0; copy(b[12:], "DENY") }, `left alone ("DENY")`},
		{"not in sync", epoch, func(b []byte) { b[0] |= 0xc0 }, "does not know the time itself"},
		{"stratum 16", epoch, func(b []byte) { b[1] = 16 }, "does not know the time itself"},
		{"another client", epoch, func(b []byte) { b[0] = 4<<3 | 3 }, "answered in mode 3"},
		{"no time", epoch, func(b []byte) { clear(b[40:48]) }, "without a time"},
		{"before the image", epoch.AddDate(-1, 0, 0), nil, "before this image was built"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sys := at(epoch.Add(time.Hour), time.Time{})
			err := clock(t, sys, "", ntpServer(t, func() time.Time { return tt.now }, tt.edit)).sync(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) || sys.steps+len(sys.slews) > 0 {
				t.Errorf("got %v, %d steps, want an error with %q", err, sys.steps, tt.want)
			}
		})
	}
}

func TestForgedAnswerIsNotHeard(t *testing.T) {
	_, _, err := parseAnswer(make([]byte, packetSize), [8]byte{1}, epoch)
	if !errors.Is(err, errForeign) {
		t.Errorf("got %v, want %v", err, errForeign)
	}
}

func TestStampKnowsEras(t *testing.T) {
	for _, want := range []time.Time{epoch, time.Date(2036, 2, 7, 6, 28, 15, 0, time.UTC), time.Date(2036, 2, 7, 6, 28, 17, 5e8, time.UTC), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)} {
		var b [8]byte
		put(b[:], want)
		if got := stamp(b[:], want.AddDate(-20, 0, 0)); got.Sub(want).Abs() > time.Microsecond {
			t.Errorf("got %s, want %s", got.UTC(), want)
		}
	}
}

func TestRunEndsAndKeepsTheTime(t *testing.T) {
	last := filepath.Join(t.TempDir(), "time")
	sys := at(epoch.Add(48*time.Hour), time.Time{})
	c := clock(t, sys, last, ntpServer(t, sys.Now, nil))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx); err != nil {
		t.Fatal(err)
	}
	got, err := c.lastKnown()
	if err != nil || got.Sub(epoch.Add(48*time.Hour)).Abs() > time.Minute {
		t.Errorf("got %s %v", got, err)
	}
}

func TestRTCTime(t *testing.T) {
	want := time.Date(2028, 2, 29, 23, 59, 58, 0, time.UTC)
	v := toRTC(want)
	if got := fromRTC(&v); !got.Equal(want) || v.Yday != 59 || v.Wday != 2 {
		t.Errorf("got %s yday %d wday %d", got, v.Yday, v.Wday)
	}
}

func FuzzParseAnswer(f *testing.F) {
	good := make([]byte, packetSize)
	good[0], good[1] = 4<<3|4, 2
	put(good[32:], epoch)
	put(good[40:], epoch)
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		received, transmitted, err := parseAnswer(data, [8]byte{}, epoch)
		if err == nil && (received.Sub(epoch).Abs() > 70*366*24*time.Hour || transmitted.IsZero()) {
			t.Errorf("got %s %s", received, transmitted)
		}
	})
}
