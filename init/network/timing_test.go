package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
)

var errSilent = errors.New("no answer")

// granted is an acknowledgement with the times of a lease; zero leaves one out.
func granted(t *testing.T, valid, t1 time.Duration) *nclient4.Lease {
	t.Helper()
	with := []dhcpv4.Modifier{dhcpv4.WithNetmask(net.CIDRMask(24, 32))}
	if valid > 0 {
		with = append(with, dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(valid)))
	}
	if t1 > 0 {
		with = append(with, dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(t1)))
	}
	return &nclient4.Lease{ACK: ack(t, with...), CreationTime: time.Now()}
}

// question is one exchange as a client made it.
type question struct {
	at      time.Duration
	renewed bool
	wait    time.Duration
}

// hours runs a DHCPv4 client for a span of virtual time. Each answer is made
// by the number of its question; what the loop would hear is returned as words.
func hours(t *testing.T, span time.Duration, answer func(t *testing.T, n int, renewal bool) (*nclient4.Lease, error)) (asked []question, heard []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), span)
		defer cancel()
		r := &runner{Network: &Network{}, reports: make(chan report)}
		begin, done := time.Now(), make(chan struct{})
		go func() {
			defer close(done)
			r.keep4(ctx, 1, func(_ context.Context, current *nclient4.Lease, wait time.Duration) (*nclient4.Lease, error) {
				asked = append(asked, question{time.Since(begin), current != nil, wait})
				return answer(t, len(asked), current != nil)
			})
		}()
		for {
			select {
			case rep := <-r.reports:
				heard = append(heard, word(rep))
			case <-done:
				return
			}
		}
	})
	return asked, heard
}

func word(rep report) string {
	switch {
	case rep.err != nil:
		return rep.err.Error()
	case rep.lease == nil:
		return "over"
	}
	return fmt.Sprint("lease of ", rep.lease.valid)
}

func TestRenewalTimes(t *testing.T) {
	tests := []struct {
		name            string
		t1, valid, want time.Duration
	}{
		{"half where the server says nothing", 0, time.Hour, 30 * time.Minute},
		{"as the server says", 10 * time.Minute, time.Hour, 10 * time.Minute},
		{"never after the end", 2 * time.Hour, time.Hour, 30 * time.Minute},
		{"not at the end either", time.Hour, time.Hour, 30 * time.Minute},
		{"infinite renewal of a short lease", 0xffffffff * time.Second, 10 * time.Minute, 5 * time.Minute},
		{"never in a hurry", time.Second, time.Hour, minRenewal},
		{"lease of no time", 0, 0, minRenewal},
		{"infinite lease", 0, 0xffffffff * time.Second, 0xffffffff * time.Second / 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := renewal(tt.t1, tt.valid); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestLeaseIsRenewedInTime(t *testing.T) {
	asked, heard := hours(t, 100*time.Minute, func(t *testing.T, _ int, _ bool) (*nclient4.Lease, error) {
		return granted(t, time.Hour, 0), nil
	})
	want := []question{{0, false, firstAnswer}, {30 * time.Minute, true, firstAnswer}, {60 * time.Minute, true, firstAnswer}, {90 * time.Minute, true, firstAnswer}}
	if !slices.Equal(asked, want) {
		t.Errorf("asked %v, want %v", asked, want)
	}
	if len(heard) != 4 || heard[0] != "lease of 1h0m0s" {
		t.Errorf("heard %q, want four leases", heard)
	}
}

// Without a server, the waits and pauses double up to a bound, for ever.
func TestPausesOfASilentNetwork(t *testing.T) {
	asked, heard := hours(t, 20*time.Minute, func(*testing.T, int, bool) (*nclient4.Lease, error) { return nil, errSilent })
	for i, q := range asked {
		if want := min(firstAnswer<<min(i, 10), maxPause); q.wait != want || q.renewed {
			t.Errorf("question %d: got %+v, want it to wait %s", i, q, want)
		}
		if i > 0 {
			if pause, last := q.at-asked[i-1].at, asked[i-1].wait; pause < last/2 || pause > last+last/2 {
				t.Errorf("pause %d: got %s, want %s give or take a half", i, pause, last)
			}
		}
	}
	if len(asked) < 15 || slices.ContainsFunc(heard, func(s string) bool { return s != errSilent.Error() }) {
		t.Errorf("asked %d times and heard %q", len(asked), heard)
	}
}

// A lease outlives its silent server until its time is over, and not longer.
func TestLeaseOfASilentServerEnds(t *testing.T) {
	asked, heard := hours(t, 90*time.Minute, func(t *testing.T, n int, _ bool) (*nclient4.Lease, error) {
		if n == 1 {
			return granted(t, time.Hour, 0), nil
		}
		return nil, errSilent
	})
	if got := slices.Index(heard, "over"); got < 2 || slices.Contains(heard[got+1:], "over") {
		t.Errorf("heard %q, want the end once", heard)
	}
	for _, q := range asked {
		if over := q.at > time.Hour+3*maxPause; q.renewed && over || !q.renewed && q.at > 0 && q.at < time.Hour {
			t.Errorf("after %s: renewal %v", q.at, q.renewed)
		}
	}
}

// A server that takes its lease back is obeyed at once, and asked for another.
func TestRefusedRenewal(t *testing.T) {
	asked, heard := hours(t, 35*time.Minute, func(t *testing.T, n int, _ bool) (*nclient4.Lease, error) {
		if n == 2 {
			l := granted(t, time.Hour, 0)
			return nil, &nclient4.ErrNak{Offer: l.ACK, Nak: l.ACK}
		}
		return granted(t, time.Hour, 0), nil
	})
	if len(heard) != 4 || heard[2] != "over" || heard[3] != "lease of 1h0m0s" {
		t.Errorf("heard %q, want a lease, the refusal, its end, and a lease", heard)
	}
	if len(asked) != 3 || !asked[1].renewed || asked[2].renewed || asked[2].at-asked[1].at > 2*time.Second {
		t.Errorf("asked %+v, want a new lease soon after the refusal", asked)
	}
}

func TestAnswerWithoutAddressIsNoLease(t *testing.T) {
	asked, heard := hours(t, time.Minute, func(t *testing.T, n int, _ bool) (*nclient4.Lease, error) {
		l := granted(t, time.Hour, 0)
		if n == 1 {
			l.ACK.YourIPAddr = net.IPv4zero
		}
		return l, nil
	})
	if want := []string{"the DHCP server gave no usable address", "lease of 1h0m0s"}; !slices.Equal(heard, want) || asked[1].renewed {
		t.Errorf("heard %q and asked %+v, want %q", heard, asked, want)
	}
}

// DHCPv6 keeps time in the same way.
func TestLease6IsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Hour)
		defer cancel()
		r := &runner{Network: &Network{}, reports: make(chan report)}
		begin, done := time.Now(), make(chan struct{})
		var at []time.Duration
		go func() {
			defer close(done)
			r.keep6(ctx, 1, func(_ context.Context, wait time.Duration) (*lease, error) {
				at = append(at, time.Since(begin))
				if len(at) == 1 || len(at) > 3 {
					return nil, errSilent
				}
				return &lease{valid: 2 * time.Hour}, nil
			})
		}()
		var heard []string
		for running := true; running; {
			select {
			case rep := <-r.reports:
				if rep.family != 6 || rep.index != 1 {
					t.Errorf("got %+v", rep)
				}
				if w := word(rep); len(heard) == 0 || heard[len(heard)-1] != w {
					heard = append(heard, w)
				}
			case <-done:
				running = false
			}
		}
		want := []string{"no answer", "lease of 2h0m0s", "no answer", "over", "no answer"}
		if !slices.Equal(heard, want) {
			t.Errorf("heard %q, want %q", heard, want)
		}
		if len(at) < 4 || at[1] > 2*time.Second || at[2]-at[1] != time.Hour || at[3]-at[2] != time.Hour {
			t.Errorf("asked at %v, want half a lease between", at[:min(4, len(at))])
		}
	})
}

// A client that is stopped says nothing more and asks nobody.
func TestStoppedClientIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := &runner{Network: &Network{}, reports: make(chan report)}
		count := 0
		r.keep4(ctx, 1, func(context.Context, *nclient4.Lease, time.Duration) (*nclient4.Lease, error) {
			count++
			cancel()
			return nil, errSilent
		})
		if count != 1 {
			t.Errorf("asked %d times, want 1", count)
		}
	})
}
