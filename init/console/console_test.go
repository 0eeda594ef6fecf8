package console

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// screen is a device that can be stopped.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func TestLinesGoEverywhere(t *testing.T) {
	c := New()
	c.Printf("early %d", 1)
	var a, b screen
	c.Add(&a)
	c.Add(&b)
	c.Opened()
	c.Printf("boot: %s: ok", "x")
	c.Line("steered\x1b[2J\r\aline")
	c.Flush(10 * time.Second)
	want := "keelson: boot: x: ok\r\nsteered[2Jline\r\n"
	if a.String() != "keelson: early 1\r\n"+want || b.String() != "keelson: early 1\r\n"+want {
		t.Errorf("got %q and %q, want %q", a.String(), b.String(), want)
	}
}

// A console that nobody drains must not hold up whoever writes, nor the others.
func TestStuckConsole(t *testing.T) {
	var good screen
	r, w := io.Pipe()
	c := New(w, &good)
	for i := range 3 * queueLength {
		c.Printf("line %d", i)
		if i%100 == 0 {
			c.flushGood(&good, i)
		}
	}
	go io.Copy(io.Discard, r)
	c.Flush(10 * time.Second)
	if strings.Contains(good.String(), "dropped") && !strings.Contains(good.String(), "line 0\r\n") {
		t.Errorf("the good console lost its beginning")
	}
	c.Flush(0)
}

// flushGood waits until the good console has caught up.
func (c *Console) flushGood(s *screen, _ int) {
	c.mu.Lock()
	o := c.outs[1]
	c.mu.Unlock()
	o.pending.Wait()
}

func TestKeys(t *testing.T) {
	var s screen
	c := New(&s)
	pressed := 0
	err := c.Keys(context.Background(), strings.NewReader("hsx"), []Key{
		{'s', "status", func() []string { pressed++; return []string{"one", "two"} }},
	})
	c.Flush(10 * time.Second)
	want := "keelson: keys: h this help\r\nkeelson: keys: s status\r\nkeelson: one\r\nkeelson: two\r\n"
	if err == nil || pressed != 1 || s.String() != want {
		t.Errorf("got %v, %d, %q, want %q", err, pressed, s.String(), want)
	}
}

func TestActive(t *testing.T) {
	file := filepath.Join(t.TempDir(), "active")
	if err := os.WriteFile(file, []byte("tty0 ttyS0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Active(file)
	if err != nil || !reflect.DeepEqual(got, []string{"tty0", "ttyS0"}) {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := Active(file + "x"); err == nil {
		t.Error("absent file: got no error")
	}
}

func TestOpenWithoutTerminal(t *testing.T) {
	f, err := Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := Open("/no/such/device"); err == nil {
		t.Error("absent device: got no error")
	}
}
