package supervisorapi

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keelson/node/token"
)

// line has waiters come one after the other and notes whose turn came.
type line struct {
	*queue
	mu    sync.Mutex // guards turns
	turns []string
	ended sync.WaitGroup
}

func (l *line) come(ctx context.Context, name string, from netip.Addr) {
	l.ended.Go(func() {
		what := name
		if err := l.enter(ctx, from); err != nil {
			what += ": " + err.Error()
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.turns = append(l.turns, what)
	})
	synctest.Wait()
}

func (l *line) check(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.turns, want) {
		t.Errorf("got %q, want %q", l.turns, want)
	}
	l.turns = nil
}

// Those of one source keep their order, and the sources take turns.
func TestQueueOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{queue: newQueue(1, 100, 100)}
		greedy, modest, third := address(1), address(2), address(3)
		l.come(t.Context(), "first", greedy)
		for i := range 3 {
			l.come(t.Context(), fmt.Sprintf("greedy %d", i), greedy)
		}
		l.come(t.Context(), "modest 0", modest)
		l.come(t.Context(), "modest 1", modest)
		l.come(t.Context(), "third", third)
		l.check(t, "first")
		for range 6 {
			l.leave()
			synctest.Wait()
		}
		l.check(t, "greedy 0", "modest 0", "third", "greedy 1", "modest 1", "greedy 2")
		l.leave()
		l.come(t.Context(), "later", modest)
		l.check(t, "later")
		l.leave()
		l.empty(t)
	})
}

func (q *queue) empty(t *testing.T) {
	t.Helper()
	if q.working != 0 || q.waiting != 0 || len(q.lines) != 0 || len(q.turns) != 0 {
		t.Errorf("not empty: %d work, %d wait, lines %v, turns %v", q.working, q.waiting, q.lines, q.turns)
	}
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{queue: newQueue(1, 3, 2)}
		ctx, cancel := context.WithCancel(t.Context())
		l.come(t.Context(), "works", address(1))
		for range 3 {
			l.come(ctx, "one", address(1))
		}
		l.check(t, "works", "one: too many requests")
		l.come(ctx, "two", address(2))
		l.come(ctx, "three", address(3))
		l.check(t, "three: too many requests")
		cancel()
		synctest.Wait()
		slices.Sort(l.turns)
		l.check(t, "one: context canceled", "one: context canceled", "two: context canceled")
		l.leave()
		l.empty(t)
	})
}

// Whoever gives up while its turn comes hands it on.
func TestQueueUnderRace(t *testing.T) {
	const slots = 3
	q := newQueue(slots, 40, 10)
	var working, most, served atomic.Int64
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for range 300 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(random.IntN(200))*time.Microsecond)
				if err := q.enter(ctx, address(i%7)); err == nil {
					if now := working.Add(1); now > slots {
						most.Store(now)
					}
					served.Add(1)
					working.Add(-1)
					q.leave()
				} else if !errors.Is(err, errFull) && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if most.Load() != 0 || served.Load() == 0 {
		t.Errorf("%d worked at a time, %d in all; want at most %d at a time", most.Load(), served.Load(), slots)
	}
	q.empty(t)
}

// occupied is a listener whose one turn of reads is taken, until free is called.
func occupied(t *testing.T, limits Limits) (b *bench, agent credential, free func()) {
	t.Helper()
	limits.InFlight, limits.InFlightWrites = 1, 1
	b = start(t, limits)
	h := b.everything(t)
	entered, leave := make(chan struct{}, 1), make(chan struct{})
	h.Config = func(context.Context) ([]byte, error) { entered <- struct{}{}; <-leave; return []byte("{}"), nil }
	if err := b.Install(h); err != nil {
		t.Fatal(err)
	}
	agent = credential{user: "node", password: agentPassword}
	done := make(chan struct{})
	go func() { defer close(done); b.do(t, agent, "GET", "/v1-rke2/config", nil) }()
	<-entered
	free = sync.OnceFunc(func() { close(leave); <-done })
	t.Cleanup(free)
	return b, agent, free
}

// waits awaits that so many requests wait for their turn.
func (b *bench) waits(t *testing.T, want int) {
	t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	for {
		b.gates.reads.mu.Lock()
		got := b.gates.reads.waiting
		b.gates.reads.mu.Unlock()
		if got == want {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d requests wait, want %d", got, want)
		}
	}
}

// Who is known waits, longer than a request may take to be read; strangers neither wait nor take the place of who does.
func TestKnownClientsWait(t *testing.T) {
	limits := unlimited()
	limits.ReadTimeout, limits.Waiting = 300*time.Millisecond, 1
	b, agent, free := occupied(t, limits)
	answer := make(chan int, 1)
	go func() {
		res, _ := b.do(t, agent, "GET", "/v1-rke2/readyz", nil)
		answer <- res.StatusCode
	}()
	b.waits(t, 1)
	for range 20 {
		if res, _ := b.do(t, credential{user: "node", password: "wrong"}, "GET", "/v1-rke2/readyz", nil); res.StatusCode != 401 {
			t.Errorf("a stranger: got %d, want 401", res.StatusCode)
		}
	}
	b.waits(t, 1)
	res, _ := b.do(t, agent, "GET", "/v1-rke2/readyz", nil)
	if res.StatusCode != 429 || res.Header.Get("Retry-After") == "" {
		t.Errorf("beyond the queue: got %d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
	}
	public, _ := b.do(t, credential{}, "GET", "/cacerts", nil)
	write, _ := b.do(t, agent, "POST", "/v1-rke2/client-kube-proxy.crt", strings.NewReader(string(signingRequest(t))))
	if public.StatusCode != 200 || write.StatusCode != 200 {
		t.Errorf("reads, writes and strangers share a bound: got %d and %d", public.StatusCode, write.StatusCode)
	}
	select { // the time of reading is over
	case got := <-answer:
		t.Fatalf("got %d before its turn", got)
	case <-time.After(2 * limits.ReadTimeout):
	}
	free()
	if got := <-answer; got != 200 {
		t.Errorf("in its turn: got %d, want 200", got)
	}
}

func TestWaitingEnds(t *testing.T) {
	limits := unlimited()
	limits.Wait = 50 * time.Millisecond
	b, agent, _ := occupied(t, limits)
	if res, _ := b.do(t, agent, "GET", "/v1-rke2/readyz", nil); res.StatusCode != 429 {
		t.Errorf("got %d, want 429", res.StatusCode)
	}
	b.waits(t, 0)
}

// Who goes away gives up its place.
func TestGoneClientsDoNotWait(t *testing.T) {
	b, agent, _ := occupied(t, unlimited())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		r, err := http.NewRequestWithContext(ctx, "GET", b.url+"/v1-rke2/readyz", strings.NewReader("a body is no hindrance"))
		if err == nil {
			r.SetBasicAuth(agent.user, agent.password)
			_, err = b.client(t, agent).Do(r)
		}
		ended <- err
	}()
	b.waits(t, 1)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b.waits(t, 0)
}

// Who sends slowly holds nobody up.
func TestSlowSenderHoldsNoTurn(t *testing.T) {
	limits := unlimited()
	limits.InFlightWrites, limits.Wait = 1, time.Second
	b := start(t, limits)
	if err := b.Install(b.everything(t)); err != nil {
		t.Fatal(err)
	}
	agent := credential{user: "node", password: agentPassword}
	c, err := tls.Dial("tcp", strings.TrimPrefix(b.url, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	basic := base64.StdEncoding.EncodeToString([]byte(agent.user + ":" + agent.password))
	if _, err := fmt.Fprintf(c, "POST /v1-rke2/client-kube-proxy.crt HTTP/1.1\r\nHost: x\r\nAuthorization: Basic %s\r\nContent-Length: 500\r\nExpect: 100-continue\r\n\r\nhalf", basic); err != nil {
		t.Fatal(err)
	}
	// The listener asks for the rest: it reads the body, and from now on would hold a turn.
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatalf("got %q, %v", line, err)
	}
	for range 3 {
		if res, _ := b.do(t, agent, "POST", "/v1-rke2/client-kube-proxy.crt", strings.NewReader(string(signingRequest(t)))); res.StatusCode != 200 {
			t.Errorf("got %d, want 200", res.StatusCode)
		}
	}
}

// A machine that has proven its name, and whoever changes something else, does not wait behind slow checks of names.
func TestSlowChecksWaitAmongTheirLike(t *testing.T) {
	limits := unlimited()
	limits.InFlightWrites, limits.Wait = 1, 20*time.Second
	b := start(t, limits)
	h := b.everything(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	h.NodeQuick = func(node string, password token.Secret) bool { return node == "known" && password == "p" }
	h.NodePassword = func(_ context.Context, node string, _ token.Secret, _ bool) error {
		if node == "new" {
			entered <- struct{}{}
			<-leave
		}
		return nil
	}
	if err := b.Install(h); err != nil {
		t.Fatal(err)
	}
	request := string(signingRequest(t))
	ask := func(kind, node string) int {
		r, err := http.NewRequest("POST", b.url+Prefix+"/"+kind+".crt", strings.NewReader(request))
		if err != nil {
			t.Error(err)
			return 0
		}
		r.Header.Set(headerName, node)
		r.Header.Set(headerPassword, "p")
		res, _ := b.send(t, credential{user: "node", password: agentPassword}, r)
		return res.StatusCode
	}
	var answered sync.WaitGroup
	answered.Go(func() {
		if got := ask("serving-kubelet", "new"); got != 200 {
			t.Errorf("new: got %d", got)
		}
	})
	<-entered
	for _, kind := range []string{"serving-kubelet", "client-kubelet", "client-kube-proxy"} {
		if got := ask(kind, "known"); got != 200 {
			t.Errorf("%s of a known node: got %d", kind, got)
		}
	}
	if got := ask("client-kube-proxy", "new"); got != 200 {
		t.Errorf("a certificate that needs no password: got %d", got)
	}
	close(leave)
	answered.Wait()
}
