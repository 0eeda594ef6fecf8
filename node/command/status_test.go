package command

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/node/status"
)

func TestStatusAsksWhoRuns(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "node", "s")
	l, err := status.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	go func() {
		done <- status.Serve(ctx, l, func(context.Context) status.Report {
			return status.Report{State: status.Up, Now: now, Started: now, Version: "v9", Role: status.Agent, Node: "w-1"}
		}, slog.New(slog.DiscardHandler))
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	var stdout, stderr bytes.Buffer
	if got := Main([]string{"status", "--socket", socket}, "v1", &stdout, &stderr); got != 0 || stdout.String() != "node          up since 2026-11-01T12:00:00Z, version v9\nrole          agent\nname          w-1\n" {
		t.Errorf("text: %d, %q, %q", got, stdout.String(), stderr.String())
	}
	stdout.Reset()
	var r status.Report
	if got := Main([]string{"status", "--output", "json", "--socket", socket}, "v1", &stdout, &stderr); got != 0 || json.Unmarshal(stdout.Bytes(), &r) != nil || r.Node != "w-1" {
		t.Errorf("JSON: %d, %q, %q", got, stdout.String(), stderr.String())
	}
}

// TestStatusOfStopped: the role is read from what the last start left, and with it whose settings they are.
func TestStatusOfStopped(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// On an agent etcd-arg is passed over, on a server it is a mistake.
	file := write("config.yaml", "data-dir: "+dir+"\nserver: https://10.0.0.1:9345\netcd-arg: {a: b}\n")
	write("agent/etc/trusted-ca-hash", strings.Repeat("0c", 32)+"\n")
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	r := stopped(file, "v1", now)
	if r.State != status.Stopped || r.Role != status.Agent || r.Join != "https://10.0.0.1:9345" || r.Trust.How != status.ByFirstUse {
		t.Errorf("agent: got %+v", r)
	}
	for _, p := range r.Problems {
		if strings.Contains(p, "etcd-arg") {
			t.Errorf("agent: %s", p)
		}
	}
	write("server/cred/passwd", "x,server,server,rke2:server\n")
	r = stopped(file, "v1", now)
	if all := strings.Join(r.Problems, "\n"); r.Role != status.Server || !strings.Contains(all, "config.yaml: line 3: etcd-arg") {
		t.Errorf("server: got %+v", r)
	}
	// Settings that cannot be read hide nothing of the rest, here in RKE2's own places.
	r = stopped(write("broken.yaml", "a: ["), "v1", now)
	if len(r.Problems) == 0 || !strings.Contains(r.Problems[len(r.Problems)-1], "is not valid YAML") {
		t.Errorf("broken: got %+v", r)
	}
}
