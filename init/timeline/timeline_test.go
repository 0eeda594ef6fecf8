package timeline

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"
)

func TestTimeline(t *testing.T) {
	var l Timeline
	l.Add("console", 1500*time.Millisecond, 12345*time.Microsecond, nil)
	l.Add("network", 2*time.Second, time.Second, errors.New("no address"))
	l.Complete(3210 * time.Millisecond)
	b, err := l.Render()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Steps    []Entry `json:"steps"`
		Complete float64 `json:"complete"`
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	want := []Entry{{"console", 1.5, 0.012, ""}, {"network", 2, 1, "no address"}}
	if !reflect.DeepEqual(got.Steps, want) || got.Complete != 3.21 {
		t.Errorf("got %+v", got)
	}
	lines := []string{
		"   1.500 s       12 ms  console",
		"   2.000 s     1000 ms  network: no address",
		"   3.210 s             boot complete",
	}
	if got := l.Lines(); !reflect.DeepEqual(got, lines) {
		t.Errorf("got %q, want %q", got, lines)
	}
}

func TestSinceKernelStartGrows(t *testing.T) {
	a := SinceKernelStart()
	if b := SinceKernelStart(); a <= 0 || b < a {
		t.Errorf("got %s, then %s", a, b)
	}
}
