package certificate

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keelson/node/pki"
)

type told struct {
	warning      bool
	reason, text string
}

func watch(dir string, all *[]told) Watch {
	return Watch{DataDir: dir, Log: slog.New(slog.DiscardHandler), Tell: func(warning bool, reason, text string) {
		*all = append(*all, told{warning, reason, text})
	}}
}

func reasons(all []told) string {
	var names []string
	for _, one := range all {
		names = append(names, one.reason)
	}
	return strings.Join(names, " ")
}

func TestWatchTellsByReason(t *testing.T) {
	dir := machine(t)
	const day = 24 * time.Hour
	for _, c := range []struct {
		after time.Duration
		calm  bool
		want  string
		now   bool
	}{
		{0, false, ReasonOK, true},
		{time.Hour, true, "", true},
		{244 * day, true, "", true},
		{246 * day, true, ReasonLeaf, false},
		{246 * day, false, ReasonLeaf, false},
		{366 * day, false, ReasonLeaf, false},
		{3286 * day, false, ReasonLeaf + " " + ReasonCA, false},
	} {
		var all []told
		now := watch(dir, &all).look(start().Add(c.after), c.calm)
		if got := reasons(all); got != c.want || now != c.now {
			t.Errorf("after %v: told %q and calm %v, want %q and %v", c.after, got, now, c.want, c.now)
		}
		for _, one := range all {
			if one.warning != (one.reason != ReasonOK) || len(one.text) > 1024 {
				t.Errorf("after %v: %+v", c.after, one)
			}
		}
	}
}

func TestWatchNamesFiles(t *testing.T) {
	dir := machine(t)
	var all []told
	watch(dir, &all).look(start().Add(246*24*time.Hour), true)
	ends := start().Add(365 * 24 * time.Hour).Format(time.RFC3339)
	text := all[0].text
	if !strings.HasPrefix(text, "Node certificates require attention - ") || !strings.Contains(text, "server/tls/client-admin.crt: O=system:masters") && !strings.Contains(text, "server/tls/client-admin.crt: CN=system:admin") ||
		!strings.Contains(text, "ends at "+ends) || strings.Contains(text, dir) || !strings.Contains(text, " more") {
		t.Errorf("got %s", text)
	}
	all = nil
	watch(dir, &all).look(start().Add(366*24*time.Hour), true)
	if !strings.Contains(all[0].text, "ended at ") {
		t.Errorf("got %s", all[0].text)
	}
	// Everything that is renewed is well again, and that is told once.
	if _, err := pki.Ensure(params(dir, start().Add(366*24*time.Hour))); err != nil {
		t.Fatal(err)
	}
	all = nil
	w := watch(dir, &all)
	calm := w.look(start().Add(366*24*time.Hour), false)
	w.look(start().Add(367*24*time.Hour), calm)
	if got := reasons(all); got != ReasonOK || all[0].text != okText {
		t.Errorf("told %q, want that all is well, once", got)
	}
}

// By a clock of its own: warnings come each half hour and no oftener.
func TestWatchRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		if _, err := pki.Ensure(params(dir, time.Now().Add(-300*24*time.Hour))); err != nil {
			t.Fatal(err)
		}
		var all []told
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour+time.Minute)
		defer cancel()
		if err := watch(dir, &all).Run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(all) != 5 || strings.Count(reasons(all), ReasonLeaf) != 5 {
			t.Errorf("in two hours: %q", reasons(all))
		}
	})
}

// What cannot be read changes nothing: neither is all well, nor is the next good look a repetition of the last.
func TestWatchOfBrokenFiles(t *testing.T) {
	dir := machine(t)
	if err := os.WriteFile(filepath.Join(dir, "agent", "serving-kubelet.crt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var all []told
	for _, calm := range []bool{true, false} {
		if got := watch(dir, &all).look(start(), calm); got != calm || len(all) != 0 {
			t.Errorf("calm %v: got %v, told %+v", calm, got, all)
		}
	}
	if err := (Watch{}).Run(t.Context()); err == nil {
		t.Error("a watch without anything was started")
	}
}

func TestJoinCounts(t *testing.T) {
	var all []string
	for i := range 40 {
		all = append(all, fmt.Sprintf("server/tls/certificate-%02d.crt: CN=x ends at 2027-01-01T00:00:00Z", i))
	}
	got := join(all)
	if n := strings.Count(got, "CN=x"); len(got)+len(leafText) > 1024 || !strings.HasSuffix(got, fmt.Sprintf(", and %d more", 40-n)) {
		t.Errorf("%d bytes: %s", len(got), got)
	}
	if got := join(all[:2]); got != all[0]+", "+all[1] {
		t.Errorf("got %s", got)
	}
}
