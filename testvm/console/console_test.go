package console

import (
	"bytes"
	"context"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
)

func texts(lines []Line) string {
	var all []string
	for _, l := range lines {
		all = append(all, l.Text)
	}
	return strings.Join(all, "\n")
}

func TestReadKeepsEverything(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"lines", "one\r\ntwo\n", "one\ntwo"},
		{"empty lines stay", "one\n\ntwo\n", "one\n\ntwo"},
		{"last line without an end", "one\ntw", "one\ntw"},
		{"colours and cursor", "\x1b[2J\x1b[01;01H\x1b[0;37mBdsDxe: loading\x1b[m \r\n", "BdsDxe: loading"},
		{"title and two-character escapes", "\x1b]0;title\x07a\x1b=b\n", "ab"},
		{"a sequence that is cut off", "a\x1b[", "a"},
		{"tabs stay, bells go", "a\tb\x07\n", "a\tb"},
		{"nothing", "", ""},
		{"a line too long is cut", strings.Repeat("x", longest+10) + "\n", strings.Repeat("x", longest) + "\n" + strings.Repeat("x", 10)},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			con := New(&log)
			if err := con.Run(strings.NewReader(c.in)); err != nil {
				t.Fatal(err)
			}
			if got := texts(con.Since(0)); got != c.want {
				t.Errorf("lines: got %q, want %q", got, c.want)
			}
			if got := strings.TrimSuffix(log.String(), "\n"); got != c.want {
				t.Errorf("log: got %q, want %q", got, c.want)
			}
		})
	}
}

func TestWaitForLineToCome(t *testing.T) {
	r, w := io.Pipe()
	con := New(io.Discard)
	con.Start()
	go con.Read(r)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	found := make(chan Line)
	go func() {
		l, err := con.Wait(ctx, 0, regexp.MustCompile("^login:"), regexp.MustCompile("ready in (.*)"))
		if err != nil {
			t.Error(err)
		}
		found <- l
	}()
	io.WriteString(w, "booting\nready in 3 s\nmore\n")
	if l := <-found; l.Text != "ready in 3 s" || l.At.IsZero() {
		t.Errorf("line: got %+v, want the one that matches, with its time", l)
	}
	if l, err := con.Wait(ctx, 0, regexp.MustCompile("booting")); err != nil || l.Text != "booting" {
		t.Errorf("a line that was there already: got %q, %v", l.Text, err)
	}

	io.WriteString(w, "second boot\n")
	if _, err := con.Wait(ctx, 0, regexp.MustCompile("second")); err != nil {
		t.Fatal(err)
	}
	mark := con.Mark()
	w.Close()
	_, err := con.Wait(ctx, mark, regexp.MustCompile("ready"))
	if !errors.Is(err, ErrEnded) {
		t.Errorf("a line from before the mark must not count: got %v, want %v", err, ErrEnded)
	}
	if !strings.Contains(err.Error(), "| second boot") || !strings.Contains(err.Error(), "`ready`") {
		t.Errorf("error: got %q, want the pattern and the last lines", err)
	}
}

func TestWaitGivesUpWithItsContext(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	con := New(io.Discard)
	con.Start()
	go con.Read(r)
	io.WriteString(w, "stuck here\n")
	ctx, cancel := context.WithCancel(context.Background())
	con.Follow(func(l Line) {
		if l.Text == "go" {
			cancel()
		}
	})
	go io.WriteString(w, "go\n")
	_, err := con.Wait(ctx, 0, regexp.MustCompile("never"))
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "| stuck here") {
		t.Errorf("error: got %v, want the context's with the last lines", err)
	}
}

func TestSeveralBootsInOneLog(t *testing.T) {
	con := New(io.Discard)
	for _, boot := range []string{"first\n", "second\n"} {
		if err := con.Run(strings.NewReader(boot)); err != nil {
			t.Fatal(err)
		}
		if err := con.Note("--- power cut ---"); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := texts(con.Since(0)), "first\n--- power cut ---\nsecond\n--- power cut ---"; got != want {
		t.Errorf("lines: got %q, want %q", got, want)
	}
	if got, want := con.Tail(2), "  | second\n  | --- power cut ---\n"; got != want {
		t.Errorf("tail: got %q, want %q", got, want)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestLogThatCannotBeKept(t *testing.T) {
	if err := New(full{}).Run(strings.NewReader("x\n")); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("error: got %v, want the log's", err)
	}
}
