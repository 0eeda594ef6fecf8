package clock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// asked runs a clock for a span of virtual time and returns when it asked for
// its servers, counted from the beginning.
func asked(t *testing.T, span time.Duration, server func() []string) (when []time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), span)
		defer cancel()
		c := clock(t, at(epoch.Add(time.Hour), time.Time{}), "")
		c.cfg.Logger = slog.New(slog.DiscardHandler)
		c.cfg.Servers = func() []string {
			when = append(when, time.Since(begin))
			return server()
		}
		if err := c.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return when
}

// A port that no server can have fails without a packet.
func nobody() []string { return []string{"127.0.0.1:99999"} }

func TestRunAsksLessAndLess(t *testing.T) {
	when := asked(t, 20*time.Minute, nobody)
	want := []time.Duration{0, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, retryPause, retryPause, retryPause}
	if len(when) < len(want) {
		t.Fatalf("got %v, want more", when)
	}
	for i := 1; i < len(when); i++ {
		least := retryPause
		if i < len(want) {
			least = want[i]
		}
		if pause := when[i] - when[i-1]; pause < least || pause > least+least/8 {
			t.Errorf("pause %d: got %s, want %s and up to an eighth more", i, pause, least)
		}
	}
}

func TestRunRestsAfterAnAnswer(t *testing.T) {
	server := ntpServer(t, func() time.Time { return epoch.Add(time.Hour) }, nil)
	for i, pause := range asked(t, 2*time.Hour, func() []string { return []string{server} }) {
		if least := time.Duration(i) * pollPause; pause < least || pause > least+least/8 {
			t.Errorf("question %d: got it after %s, want %s and up to an eighth more", i, pause, least)
		}
	}
}

// Once a server has answered and then falls silent, the pauses begin anew.
func TestRunComesBackToASilentServer(t *testing.T) {
	server := ntpServer(t, func() time.Time { return epoch.Add(time.Hour) }, nil)
	count := 0
	when := asked(t, 40*time.Minute, func() []string {
		if count++; count == 1 {
			return []string{server}
		}
		return nobody()
	})
	if len(when) < 3 || when[1] < pollPause || when[2]-when[1] < retryPause {
		t.Errorf("got %v, want a rest of %s and then of %s", when, pollPause, retryPause)
	}
}

// Run logs the first failure and is quiet until the network works again.
func TestRunSaysItOnce(t *testing.T) {
	var log strings.Builder
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		c := clock(t, at(epoch.Add(time.Hour), time.Time{}), "", nobody()...)
		c.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		if err := c.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	if got := strings.Count(log.String(), "no time from the network yet"); got != 1 {
		t.Errorf("got %d lines, want 1:\n%s", got, log.String())
	}
}

// The threshold between letting the clock run faster and setting it.
func TestCorrect(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name         string
		offset       time.Duration
		fails        error
		steps, slews int
		want         string // "" for no error
	}{
		{"nothing", 0, nil, 0, 1, ""},
		{"ahead, near", stepAbove, nil, 0, 1, ""},
		{"behind, near", -stepAbove, nil, 0, 1, ""},
		{"ahead, far", stepAbove + 1, nil, 1, 0, ""},
		{"behind, far", -stepAbove - 1, nil, 1, 0, ""},
		{"a year ahead", 365 * 24 * time.Hour, nil, 1, 0, ""},
		{"behind the image", -2 * time.Hour, nil, 0, 0, "time server s: its time is before this image was built"},
		{"decades ahead", 26 * 366 * 24 * time.Hour, nil, 0, 0, "time server s: its time is decades after this image was built"},
		{"step forbidden", time.Minute, boom, 1, 0, "boom"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sys := at(epoch.Add(time.Hour), time.Time{})
			sys.fails = tt.fails
			err := clock(t, sys, "").correct("s", tt.offset)
			if got := fmt.Sprint(err); err == nil && tt.want != "" || err != nil && got != tt.want {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if sys.steps != tt.steps || len(sys.slews) != tt.slews {
				t.Errorf("got %d steps and slews %v, want %d and %d", sys.steps, sys.slews, tt.steps, tt.slews)
			}
			if written := !sys.rtc.IsZero(); written != (tt.want == "") {
				t.Errorf("hardware clock: got %s", sys.rtc)
			}
		})
	}
}

// Answers to other questions, and noise, are passed over for the right one.
func TestForgedAnswersBeforeTheRightOne(t *testing.T) {
	var nonce [8]byte
	copy(nonce[:], "question")
	good := make([]byte, packetSize)
	good[0], good[1] = 4<<3|4, 1
	copy(good[24:], nonce[:])
	put(good[32:], epoch)
	put(good[40:], epoch.Add(time.Second))
	with := func(edit func([]byte)) []byte {
		b := append([]byte(nil), good...)
		edit(b)
		return b
	}
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"right", good, ""},
		{"longer, with extensions", append(append([]byte(nil), good...), make([]byte, 20)...), ""},
		{"alarm of a leap second", with(func(b []byte) { b[0] |= 0x40 }), ""},
		{"version 3", with(func(b []byte) { b[0] = 3<<3 | 4 }), ""},
		{"last stratum", with(func(b []byte) { b[1] = maxStratum }), ""},
		{"one byte short", good[:packetSize-1], errForeign.Error()},
		{"empty", nil, errForeign.Error()},
		{"other question", with(func(b []byte) { b[31]++ }), errForeign.Error()},
		{"no question at all", with(func(b []byte) { clear(b[24:32]) }), errForeign.Error()},
		{"broadcast", with(func(b []byte) { b[0] = 4<<3 | 5 }), "answered in mode 5, want 4 (server)"},
		{"our own words", with(func(b []byte) { b[0] = 4<<3 | 3 }), "answered in mode 3, want 4 (server)"},
		{"kiss with control characters", with(func(b []byte) { b[1] = 0; copy(b[12:], "\x1b[2J") }), `the server wants to be left alone ("\x1b[2J")`},
		{"no receive time", with(func(b []byte) { clear(b[32:40]) }), "answered without a time"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			received, transmitted, err := parseAnswer(tt.data, nonce, epoch)
			if tt.want != "" {
				if err == nil || err.Error() != tt.want || !received.IsZero() || !transmitted.IsZero() {
					t.Errorf("got %s %s %v, want %q", received, transmitted, err, tt.want)
				}
				return
			}
			if err != nil || received.Sub(epoch).Abs() > time.Microsecond || transmitted.Sub(received) != time.Second {
				t.Errorf("got %s %s %v, want the two times", received, transmitted, err)
			}
		})
	}
}

// A server whose answer leaves before the question came knows no time.
func TestServerThatAnswersBackwards(t *testing.T) {
	sys := at(epoch.Add(time.Hour), time.Time{})
	server := ntpServer(t, sys.Now, func(b []byte) { put(b[40:], sys.Now().Add(-time.Hour)) })
	err := clock(t, sys, "", server).sync(t.Context())
	if err == nil || !strings.Contains(err.Error(), "says nothing") || sys.steps+len(sys.slews) > 0 {
		t.Errorf("got %v, %d steps, want the answer refused", err, sys.steps)
	}
}

func TestSyncTellsOfEveryServer(t *testing.T) {
	err := clock(t, at(epoch, time.Time{}), "", "127.0.0.1:99999", "[::1]:99998").sync(t.Context())
	if err == nil || !strings.Contains(err.Error(), "99999") || !strings.Contains(err.Error(), "99998") {
		t.Errorf("got %v, want both servers named", err)
	}
}

func TestLastKnownTime(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, path, want string }{
		{"new file", filepath.Join(dir, "time"), ""},
		{"nowhere", "", ""},
		{"folder is absent", filepath.Join(dir, "absent", "time"), "keep time: open "},
		{"a link", filepath.Join(dir, "link"), "keep time: open "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := clock(t, at(epoch.Add(48*time.Hour), time.Time{}), tt.path)
			if err := c.keep(); (err != nil) != (tt.want != "") || err != nil && !strings.HasPrefix(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			got, err := c.lastKnown()
			if err != nil || tt.name == "new file" && got.Sub(epoch.Add(48*time.Hour)).Abs() > time.Minute || tt.want != "" && !got.IsZero() {
				t.Errorf("got %s %v", got, err)
			}
		})
	}
}

// Machines without a hardware clock, and files that are none.
func TestMachineWithoutRTC(t *testing.T) {
	for path, want := range map[string]string{filepath.Join(t.TempDir(), "rtc"): "hardware clock: open ", "/dev/null": "hardware clock: "} {
		m := machine{rtc: path}
		if _, err := m.ReadRTC(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("read %s: got %v, want %q", path, err, want)
		}
		if err := m.WriteRTC(epoch); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("write %s: got %v, want %q", path, err, want)
		}
	}
	if off := time.Until(machine{}.Now()).Abs(); off > time.Second {
		t.Errorf("now is %s off", off)
	}
}

func TestNewNeedsALogger(t *testing.T) {
	if c, err := New(Config{}); err == nil || c != nil {
		t.Errorf("got %v %v, want an error", c, err)
	}
}
