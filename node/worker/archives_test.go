package worker

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shipped is a worker with archives, and a ctr that writes down what it is asked and remembers what was imported.
func shipped(t *testing.T, archives ...string) (f *fixture, calls func() []string, log *bytes.Buffer) {
	t.Helper()
	f = newFixture(t, nil)
	f.programs.archives, f.programs.ctr = filepath.Join(f.dir, "archives"), filepath.Join(f.dir, "ctr")
	if err := os.Mkdir(f.programs.archives, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range archives {
		file := filepath.Join(f.programs.archives, name)
		if err := os.WriteFile(file, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, time.Time{}, time.Unix(1_700_000_000, 0)); err != nil {
			t.Fatal(err)
		}
	}
	record := filepath.Join(f.dir, "calls")
	script := fmt.Sprintf(`#!/bin/sh
echo "$@" >> %[1]s
shift 4
case "$2" in
ls) test -e %[1]s.done && echo registry.example/app:1 ;;
import) case "$*" in *broken*) echo "unexpected EOF" >&2; exit 1 ;; esac; touch %[1]s.done ;;
esac
exit 0
`, record)
	if err := os.WriteFile(f.programs.ctr, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	log = &bytes.Buffer{}
	f.cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	return f, func() []string {
		text, err := os.ReadFile(record)
		if err != nil {
			return nil
		}
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}, log
}

func TestArchivesAreImportedOnce(t *testing.T) {
	f, calls, log := shipped(t, "app.tar", "README")
	f.importArchives(context.Background())
	first := calls()
	if len(first) != 2 {
		t.Fatalf("ctr was asked %q, want whether it is there, and to import it", first)
	}
	const id = "app.tar:7:1700000000"
	if !strings.Contains(first[0], "--namespace k8s.io images ls -q") || !strings.Contains(first[0], `labels."keelson.io/archive"=="`+id+`"`) {
		t.Errorf("question: got %q", first[0])
	}
	for _, want := range []string{"--address " + f.programs.socket, "--snapshotter keelson", "--label keelson.io/archive=" + id, "io.cri-containerd.pinned=pinned", "app.tar"} {
		if !strings.Contains(first[1], want) {
			t.Errorf("import lacks %q: %q", want, first[1])
		}
	}
	f.importArchives(context.Background())
	if again := calls(); len(again) != 3 {
		t.Errorf("second start: ctr was asked %q, want one question more", again[2:])
	}
	if log.Len() > 0 {
		t.Errorf("log: %s", log)
	}
}

func TestBrokenArchiveStopsNothing(t *testing.T) {
	f, calls, log := shipped(t, "a-broken.tar", "b.tar")
	f.importArchives(context.Background())
	if got := calls(); len(got) != 4 || !strings.Contains(got[3], "b.tar") {
		t.Errorf("ctr was asked %q, want both archives", got)
	}
	if !strings.Contains(log.String(), "a-broken.tar") || !strings.Contains(log.String(), "unexpected EOF") {
		t.Errorf("log: got %q, want which archive and why", log)
	}
}

func TestNoArchives(t *testing.T) {
	f, calls, log := shipped(t)
	f.importArchives(context.Background())
	f.programs.archives = filepath.Join(f.dir, "absent")
	f.importArchives(context.Background())
	if got := calls(); got != nil || log.Len() > 0 {
		t.Errorf("without archives: ctr was asked %q, log %q", got, log)
	}
}
