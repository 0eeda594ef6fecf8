package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// monitor plays QEMU's side: it greets and then answers every command with
// what script makes of it.
func monitor(t *testing.T, script func(line string) string) (net.Conn, chan struct{}) {
	t.Helper()
	ours, theirs := net.Pipe()
	gone := make(chan struct{})
	go func() {
		defer theirs.Close()
		fmt.Fprintln(theirs, `{"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": ["oob"]}}`)
		for in := bufio.NewScanner(theirs); in.Scan(); {
			answer := script(in.Text())
			if answer == "" {
				return
			}
			fmt.Fprintln(theirs, answer)
		}
	}()
	t.Cleanup(func() { ours.Close() })
	return ours, gone
}

const empty = `{"return": {}}`

func TestQMP(t *testing.T) {
	var got []string
	conn, gone := monitor(t, func(line string) string {
		got = append(got, line)
		switch {
		case strings.Contains(line, "system_powerdown"):
			return `{"event": "POWERDOWN", "timestamp": {"seconds": 1}}` + "\n" + empty + "\n" +
				`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}`
		case strings.Contains(line, "system_reset"):
			return `{"error": {"class": "GenericError", "desc": "no such button"}}`
		case strings.Contains(line, "quit"):
			return ""
		}
		return empty
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	q, err := dial(ctx, conn, gone)
	if err != nil {
		t.Fatal(err)
	}
	if got := q.ShutdownReason(); got != "" {
		t.Errorf("reason of a running machine: got %q, want none", got)
	}
	if err := q.Powerdown(ctx); err != nil {
		t.Error(err)
	}
	if err := q.Reset(ctx); err == nil || !strings.Contains(err.Error(), "no such button") {
		t.Errorf("refused command: got %v, want QEMU's own words", err)
	}
	if err := q.CtrlAltDel(ctx); err != nil {
		t.Error(err)
	}
	if err := q.Quit(ctx); err != nil {
		t.Errorf("quit: got %v, want no error when the connection ends", err)
	}
	if err := q.Reset(ctx); !errors.Is(err, ErrGone) {
		t.Errorf("command after the end: got %v, want %v", err, ErrGone)
	}
	if got, want := q.ShutdownReason(), "guest-shutdown"; got != want {
		t.Errorf("reason: got %q, want %q", got, want)
	}
	want := []string{
		`{"execute":"qmp_capabilities"}`, `{"execute":"system_powerdown"}`, `{"execute":"system_reset"}`,
		`{"arguments":{"keys":[{"type":"qcode","data":"ctrl"},{"type":"qcode","data":"alt"},{"type":"qcode","data":"delete"}]},"execute":"send-key"}`,
		`{"execute":"quit"}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("commands: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestQMPDialEnds(t *testing.T) {
	silent := func() (net.Conn, net.Conn) { return net.Pipe() }
	t.Run("qemu dies at its command line", func(t *testing.T) {
		ours, theirs := silent()
		defer theirs.Close()
		gone := make(chan struct{})
		close(gone)
		if _, err := dial(context.Background(), ours, gone); !errors.Is(err, ErrGone) {
			t.Errorf("error: got %v, want %v", err, ErrGone)
		}
	})
	t.Run("the caller gives up", func(t *testing.T) {
		ours, theirs := silent()
		defer theirs.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := dial(ctx, ours, make(chan struct{})); !errors.Is(err, context.Canceled) {
			t.Errorf("error: got %v, want %v", err, context.Canceled)
		}
	})
}
