package kmsg

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestLoggerWritesRecords(t *testing.T) {
	var ring, file bytes.Buffer
	w := NewWriter(&ring)
	log := Logger(w)
	log.Info("boot step", "step", "console")
	w.SetFile(&file)
	log.Error("halted", "error", errors.New("why"))
	log.Warn(strings.Repeat("x", 2000))
	lines := strings.Split(ring.String(), "<")
	if got, want := lines[1], "6>keelson: level=INFO msg=\"boot step\" step=console\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := lines[2], "4>keelson: level=ERROR msg=halted error=why\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := len(lines[3]); got > maxRecord+20 {
		t.Errorf("record of %d bytes", got)
	}
	if strings.Contains(file.String(), "console") || !strings.Contains(file.String(), "Z level=ERROR msg=halted error=why\n") {
		t.Errorf("file: %q", file.String())
	}
}

func TestParseRecord(t *testing.T) {
	cases := []struct {
		name, in string
		want     Record
		wantErr  bool
	}{
		{"kernel", "3,1234,8652908,-;FAT-fs (vda2): bogus\n SUBSYSTEM=block\n", Record{true, "FAT-fs (vda2): bogus"}, false},
		{"program", "14,1,2,-;keelson: x\n", Record{false, "keelson: x"}, false},
		{"more fields", "6,1,2,-,caller=T1;a;b\n", Record{true, "a;b"}, false},
		{"no text", "6,1,2,-", Record{}, true},
		{"no number", "x,1,2,-;a", Record{}, true},
		{"negative", "-1,1,2,-;a", Record{}, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseRecord([]byte(c.in))
			if got != c.want || (err != nil) != c.wantErr {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte("3,1234,8652908,-;FAT-fs\n A=b\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRecord(b); err == nil && strings.Contains(r.Text, "\n") {
			t.Errorf("%q: text of several lines", b)
		}
	})
}

// The kernel's own log gives back what a program wrote to it, to who watches and to who looks.
func TestRing(t *testing.T) {
	ring, err := os.OpenFile(Device, os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("SKIPPED: needs the kernel's log: %v", err)
	}
	defer ring.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var before bytes.Buffer
	w := NewWriter(&before)
	w.SetRing(ring)
	text := "test " + rand.Text()
	Logger(w).Info(text)
	want := Record{Text: `keelson: level=INFO msg="` + text + `"`}
	if before.Len() > 0 {
		t.Errorf("the ring of before: got %q, want nothing", before.String())
	}
	var got Record
	if err := Watch(ctx, func(r Record) {
		if strings.Contains(r.Text, text) {
			got = r
			cancel()
		}
	}); err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("watched: got %+v, want %+v", got, want)
	}
	if got, ok := Find(func(r Record) bool { return strings.Contains(r.Text, text) }); !ok || got != want {
		t.Errorf("found: got %+v, %v, want %+v", got, ok, want)
	}
	if got, ok := Find(func(Record) bool { return false }); ok {
		t.Errorf("looked for nothing: got %+v", got)
	}
}
