package cluster

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/testvm/kube"
)

// The register is a ConfigMap whose number writers raise by one, each on what it has read: a compare-and-swap by the
// object's resource version.
const (
	register = "register"
	key      = "n"
	oneTry   = 3 * time.Second // a try that takes longer is given up, and counts as one that may have succeeded
	again    = 100 * time.Millisecond
)

// history is what writers were told.
type history struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex
	first   int         // the number before any writer
	acked   map[int]int // by number written: which writer's success it was
	unsure  int         // tries whose answer did not come
	wrong   []string    // successes that cannot be
	last    time.Time   // of the last success
	gap     time.Duration
	changed chan struct{} // closed and replaced with each success
}

// watchWrites starts a writer at each client. It goes to the next client when one fails, as a load balancer would.
func watchWrites(t *testing.T, clients ...*kube.Client) *history {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	_, err := clients[0].CoreV1().ConfigMaps("default").Create(within(t, changeLimit), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: register}, Data: map[string]string{key: "0"},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	h := &history{stop: stop, acked: map[int]int{}, last: time.Now(), changed: make(chan struct{})}
	if h.first, err = read(within(t, changeLimit), clients[0]); err != nil {
		t.Fatal(err)
	}
	for i := range clients {
		h.done.Go(func() { h.write(ctx, i, clients) })
	}
	t.Cleanup(func() {
		stop()
		h.done.Wait()
	})
	return h
}

func read(ctx context.Context, c *kube.Client) (int, error) {
	object, err := c.CoreV1().ConfigMaps("default").Get(ctx, register, metav1.GetOptions{})
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(object.Data[key])
}

// write raises the number until ctx ends.
func (h *history) write(ctx context.Context, writer int, clients []*kube.Client) {
	tick := time.NewTicker(again)
	defer tick.Stop()
	at := writer
	for {
		n, sent, err := raise(ctx, clients[at%len(clients)])
		h.note(writer, n, sent, err)
		if err != nil && !apierrors.IsConflict(err) {
			at++
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// raise does one compare-and-swap. sent tells whether the write was sent at all.
func raise(ctx context.Context, c *kube.Client) (n int, sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, oneTry)
	defer cancel()
	of := c.CoreV1().ConfigMaps("default")
	object, err := of.Get(ctx, register, metav1.GetOptions{})
	if err != nil {
		return 0, false, err
	}
	if n, err = strconv.Atoi(object.Data[key]); err != nil {
		return 0, false, err
	}
	n++
	object.Data[key] = strconv.Itoa(n)
	_, err = of.Update(ctx, object, metav1.UpdateOptions{})
	return n, true, err
}

func (h *history) note(writer, n int, sent bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err == nil:
		if other, twice := h.acked[n]; twice {
			h.wrong = append(h.wrong, fmt.Sprintf("%d was written twice with success, by writers %d and %d", n, other, writer))
		}
		h.acked[n] = writer
		now := time.Now()
		h.gap = max(h.gap, now.Sub(h.last))
		h.last = now
		close(h.changed)
		h.changed = make(chan struct{})
	case sent && !apierrors.IsConflict(err):
		h.unsure++
	}
}

// other notes a try of somebody who is not one of the writers: it may have raised the number.
func (h *history) other(sent bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if sent {
		h.unsure++
	}
}

// begin forgets the longest pause so far.
func (h *history) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gap, h.last = 0, time.Now()
}

// success waits for a write that succeeds after a moment.
func (h *history) success(ctx context.Context, after time.Time) error {
	for {
		h.mu.Lock()
		last, changed := h.last, h.changed
		h.mu.Unlock()
		if last.After(after) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("no write has succeeded for %s: %w", time.Since(last).Round(time.Millisecond), ctx.Err())
		}
	}
}

// longest is the longest pause between two successes since begin, the present one included.
func (h *history) longest() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(h.gap, time.Since(h.last))
}

// check ends the writers and holds what they were told against what is there.
func (h *history) check(ctx context.Context, c *kube.Client) error {
	h.stop()
	h.done.Wait()
	n, err := read(ctx, c)
	if err != nil {
		return err
	}
	return h.judge(n)
}

// judge compares with the number that is there in the end. Each success raised it by one, each try without an answer
// may have; one more or less has been lost, or was never there.
func (h *history) judge(n int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, w := range h.wrong {
		errs = append(errs, errors.New(w))
	}
	for written := range h.acked {
		if written > n || written <= h.first {
			errs = append(errs, fmt.Errorf("the number is %d, but %d was written with success: it was lost", n, written))
		}
	}
	if got, least, most := n-h.first, len(h.acked), len(h.acked)+h.unsure; got < least || got > most {
		errs = append(errs, fmt.Errorf("the number rose by %d, want %d to %d: %d writes were acknowledged, %d had no answer", got, least, most, least, h.unsure))
	}
	return errors.Join(errs...)
}

func TestHistoryIsJudged(t *testing.T) {
	const writes = true
	lost := errors.New("no answer")
	conflict := apierrors.NewConflict(corev1.Resource("configmaps"), register, errors.New("newer"))
	type try struct {
		n    int
		sent bool
		err  error
	}
	for _, c := range []struct {
		name  string
		tries []try
		end   int
		good  bool
	}{
		{"nothing", nil, 10, true},
		{"all there", []try{{11, writes, nil}, {12, writes, nil}}, 12, true},
		{"one lost", []try{{11, writes, nil}, {12, writes, nil}}, 11, false},
		{"one more", []try{{11, writes, nil}}, 12, false},
		{"without an answer, and there", []try{{11, writes, nil}, {12, writes, lost}}, 12, true},
		{"without an answer, and not there", []try{{11, writes, nil}, {12, writes, lost}}, 11, true},
		{"a conflict changes nothing", []try{{11, writes, nil}, {11, writes, conflict}}, 12, false},
		{"a read that failed changes nothing", []try{{11, writes, nil}, {0, !writes, lost}}, 12, false},
		{"twice the same", []try{{11, writes, nil}, {11, writes, nil}}, 11, false},
		{"an old state came back", []try{{11, writes, nil}, {12, writes, nil}, {11, writes, nil}}, 12, false},
		{"before the beginning", []try{{9, writes, nil}}, 11, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &history{first: 10, acked: map[int]int{}, changed: make(chan struct{})}
			for i, try := range c.tries {
				h.note(i, try.n, try.sent, try.err)
			}
			if err := h.judge(c.end); (err == nil) != c.good {
				t.Errorf("got %v, want good: %v", err, c.good)
			}
		})
	}
}
