package watchdog

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFeed(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	cases := []struct {
		name  string
		check func(context.Context) error
		want  string
	}{
		{"progress", func(context.Context) error { return nil }, ""},
		{"error", func(context.Context) error { return errors.New("stuck") }, "part: stuck"},
		{"hang", func(context.Context) error { <-hang; return nil }, "part: no progress"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var w bytes.Buffer
			err := feed(context.Background(), Config{Timeout: 200 * time.Millisecond, Checks: []Check{{"part", c.check}}}, &w)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if fed := w.Len() > 0; fed != (c.want == "") {
				t.Errorf("fed: %v", fed)
			}
		})
	}
}

func TestNoDeviceIsFine(t *testing.T) {
	err := Run(context.Background(), Config{Device: filepath.Join(t.TempDir(), "none"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Error(err)
	}
}

// A file stands for the device: it has no timeout of its own, and keeps what was written.
func TestRun(t *testing.T) {
	for _, c := range []struct {
		name  string
		check func(time.Duration) error // by the time that has passed
		want  string
	}{
		{"progress", func(time.Duration) error { return nil }, "\x00\x00\x00\x00V"},
		{"a part recovers", func(d time.Duration) error {
			if d < 20*time.Second {
				return errors.New("stuck")
			}
			return nil
		}, "\x00\x00V"},
		{"a part is stuck", func(time.Duration) error { return errors.New("stuck") }, "V"},
	} {
		t.Run(c.name, func(t *testing.T) {
			device := filepath.Join(t.TempDir(), "watchdog")
			if err := os.WriteFile(device, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second) // 0, 15, 30 and 45 s
				defer cancel()
				var log bytes.Buffer
				err := Run(ctx, Config{
					Device: device, Logger: slog.New(slog.NewTextHandler(&log, nil)),
					Checks: []Check{{"part", func(context.Context) error { return c.check(time.Since(began)) }}},
				})
				if err != nil {
					t.Fatal(err)
				}
				got, err := os.ReadFile(device)
				if err != nil || string(got) != c.want {
					t.Errorf("device: got %q, %v, want %q", got, err, c.want)
				}
				if told := strings.Contains(log.String(), `"part: stuck"`); told != (len(c.want) < 5) {
					t.Errorf("log: got %s", log.String())
				}
				if !strings.Contains(log.String(), "watchdog keeps its own timeout") || !strings.Contains(log.String(), "timeout=1m0s") {
					t.Errorf("log: got %s, want what became of the timeout", log.String())
				}
			})
		})
	}
}

func TestDeviceThatCannotBeOpened(t *testing.T) {
	err := Run(t.Context(), Config{Device: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "open watchdog: ") {
		t.Errorf("got %v, want an error", err)
	}
}
