package supervisorapi

import (
	"net/netip"
	"testing"
	"time"
)

func TestSource(t *testing.T) {
	for _, c := range []struct{ addr, want string }{
		{"10.0.0.1:5", "10.0.0.1"},
		{"[::ffff:10.0.0.1]:5", "10.0.0.1"},
		{"[2001:db8:1:2:3:4:5:6]:5", "2001:db8:1:2::"},
		{"[fe80::1%eth0]:5", "fe80::"},
		{"pipe", "invalid IP"},
	} {
		if got := source(c.addr).String(); got != c.want {
			t.Errorf("%s: got %s, want %s", c.addr, got, c.want)
		}
	}
}

func address(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}) }

func TestBuckets(t *testing.T) {
	b := newBuckets(2, 3, 100)
	now := time.Unix(1000, 0)
	take := func(n float64, want bool) {
		t.Helper()
		if got := b.take(address(1), n, now); got != want {
			t.Fatalf("at %v: got %v, want %v", now.Unix(), got, want)
		}
	}
	take(1, true)
	take(1, true)
	take(0, true)
	take(1, true)
	take(0, false)
	take(1, false)
	now = now.Add(500 * time.Millisecond) // one token
	take(0, true)
	take(1, true)
	take(1, false)
	now = now.Add(time.Hour) // no more than the burst
	for range 3 {
		take(1, true)
	}
	take(1, false)
	now = now.Add(-time.Hour) // a clock that was set back gives nothing and takes nothing
	take(1, false)
	if !b.take(address(2), 1, now) {
		t.Error("another address is limited too")
	}
}

// TestBucketsStayBounded: a flood of addresses neither grows the memory nor forgets who is over the limit.
func TestBucketsStayBounded(t *testing.T) {
	b := newBuckets(0.001, 5, 50)
	now := time.Unix(1000, 0)
	guilty := address(0)
	for range 5 {
		b.take(guilty, 1, now)
	}
	for n := 1; n < 5000; n++ {
		b.take(address(n), 1, now)
		if len(b.all) > 50 {
			t.Fatalf("%d buckets", len(b.all))
		}
	}
	if b.take(guilty, 1, now) {
		t.Error("the flood freed the guilty address")
	}
	now = now.Add(24 * time.Hour)
	b.take(address(6000), 1, now)
	if len(b.all) != 1 {
		t.Errorf("%d buckets after a day, want the new one", len(b.all))
	}
}
