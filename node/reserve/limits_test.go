package reserve

import "testing"

func TestLimits(t *testing.T) {
	for _, c := range []struct {
		total, size, low, critical uint64
	}{
		{0, 0, 0, 0},
		{256 * mib, 32 * mib, 32 * mib, 16 * mib},
		{2 * gib, 128 * mib, 192 * mib, 96 * mib},
		{8 * gib, 256 * mib, 512 * mib, 128 * mib},
		{40 * gib, 512 * mib, 2560 * mib, 512 * mib},
		{4000 * gib, 512 * mib, 4 * gib, 512 * mib},
	} {
		l := limitsOf(c.total)
		if l.size != c.size || l.low != c.low || l.critical != c.critical {
			t.Errorf("%s: got a reserve of %s, low at %s, critical at %s", size(c.total), size(l.size), size(l.low), size(l.critical))
		}
		if c.total > 0 && !(l.none < l.critical && l.critical < l.low && l.low < l.back && l.back+l.size < c.total/2) {
			t.Errorf("%s: out of order: %+v", size(c.total), l)
		}
	}
	for bytes, want := range map[uint64]string{0: "0 MiB", 5 * mib: "5 MiB", 9 * gib: "9216 MiB", 20 * gib: "20 GiB"} {
		if got := size(bytes); got != want {
			t.Errorf("%d: got %s, want %s", bytes, got, want)
		}
	}
}
