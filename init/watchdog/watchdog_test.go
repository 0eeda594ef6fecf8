package watchdog

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
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
