package server

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keelson/node/supervisorclient"
	"keelson/node/token"
	"keelson/node/trust"
)

var floodFor = flag.Duration("flood", 5*time.Second, "how long TestScenario8 lasts; the whole of it is 60s")

// The flood, and what must hold under it.
const (
	halfOpen   = 500  // connections that begin a handshake and say no more, opened anew when the listener ends them
	perSecond  = 1000 // wrong tokens
	attackers  = 100  // addresses that both come from
	joinLimit  = 10 * time.Second
	heapLimit  = 256 << 20 // attackers, joiners and etcd are in this process as well
	threadsMax = 4 * (halfOpen + attackers)
)

// TestScenario8 is the hostile listener: a server's supervisor with the real etcd behind it, 500 half-open connections,
// 1,000 wrong tokens a second. Agents and servers join meanwhile, one after the other.
func TestScenario8HostileListener(t *testing.T) {
	s := newSite(t)
	a := s.newBox(1, "cp-1", nil, nil)
	s.together(a)
	end := time.Now().Add(*floodFor)
	fire, cancel := context.WithDeadline(context.Background(), end)
	defer cancel()
	f := &flood{address: net.JoinHostPort(a.address, "9345")}
	f.start(fire)

	var slowest time.Duration
	var heap uint64
	var routines, joins int
	for ; fire.Err() == nil && !t.Failed(); joins++ {
		began := time.Now()
		if err := s.joinUnderFire(a, joins); err != nil {
			t.Errorf("join %d: %v", joins, err)
		}
		slowest = max(slowest, time.Since(began))
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		heap, routines = max(heap, m.HeapInuse), max(routines, runtime.NumGoroutine())
	}
	f.done.Wait()
	rate := float64(f.guesses.Load()) / floodFor.Seconds()
	t.Logf("%d half-open connections at most, %.0f wrong tokens a second: %d joins, the slowest %.2f s; heap %d MiB, %d goroutines at most (attackers and etcd included)",
		f.most.Load(), rate, joins, slowest.Seconds(), heap>>20, routines)
	if slowest > joinLimit {
		t.Errorf("a valid join took %v, want at most %v", slowest, joinLimit)
	}
	if heap > heapLimit || routines > threadsMax {
		t.Errorf("heap grew to %d MiB and goroutines to %d, want at most %d MiB and %d", heap>>20, routines, heapLimit>>20, threadsMax)
	}
	if f.most.Load() < halfOpen/2 || rate < perSecond/10 {
		t.Errorf("this was no flood: %d half-open connections, %.0f wrong tokens a second", f.most.Load(), rate)
	}
}

// joinUnderFire goes through what an agent asks, and what a server asks before it starts its etcd.
func (s *site) joinUnderFire(a *box, n int) error {
	agent := s.newAgent(fmt.Sprintf("w-%d", n), a)
	return errors.Join(
		s.patiently(func() error { return agent.join(a) }),
		s.patiently(func() error { return s.serverAsks(a, agent.dir) }),
	)
}

// patiently asks again after a while: an address may ask ten times a second, and all joiners of this test have one.
func (s *site) patiently(ask func() error) error {
	ctx, cancel := context.WithTimeout(s.ctx, 2*joinLimit)
	defer cancel()
	tick := time.NewTicker(later)
	defer tick.Stop()
	for {
		err := ask()
		if !errors.Is(err, supervisorclient.ErrBusy) && !errors.Is(err, supervisorclient.ErrNotReady) && !errors.Is(err, trust.ErrNotReady) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

func (s *site) serverAsks(a *box, dir string) error {
	access, err := trust.Validate(s.ctx, trust.Config{
		Server: a.url(), Token: clusterToken, User: token.UserServer, PinFile: filepath.Join(dir, "server-pin"), Log: log(),
	})
	if err != nil {
		return err
	}
	client := supervisorclient.New(access, nil)
	defer client.Close()
	if _, err := client.ServerBootstrap(s.ctx); err != nil {
		return err
	}
	members, err := client.DBInfo(s.ctx)
	if err == nil && len(members) != 1 {
		err = fmt.Errorf("got members %v", members)
	}
	return err
}

// flood is who means no good.
type flood struct {
	address       string
	done          sync.WaitGroup
	guesses       atomic.Int64 // that were answered
	pending, most atomic.Int64
}

func (f *flood) start(ctx context.Context) {
	for i := range halfOpen {
		f.done.Go(func() {
			for ctx.Err() == nil {
				f.linger(ctx, i)
			}
		})
	}
	for i := range attackers {
		f.done.Go(func() { f.guess(ctx, i) })
	}
}

// from dials as one of many machines: addresses of 127.0.0.0/8 stand for them.
func from(net3 byte, n int) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, net3, byte(n>>8), byte(n)+1)}}
}

// linger holds a connection until the listener ends it.
func (f *flood) linger(ctx context.Context, i int) {
	c, err := from(2, i%attackers).DialContext(ctx, "tcp", f.address)
	if err != nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	f.most.Store(max(f.most.Load(), f.pending.Add(1)))
	defer f.pending.Add(-1)
	_, _ = io.Copy(io.Discard, c)
}

func (f *flood) guess(ctx context.Context, i int) {
	tr := &http.Transport{DialContext: from(3, i).DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // it asks whoever answers
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr, Timeout: 5 * time.Second}
	pace := time.NewTicker(time.Second * attackers / perSecond)
	defer pace.Stop()
	for {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+f.address+"/v1-rke2/config", nil)
		if err != nil {
			return
		}
		r.SetBasicAuth("node", "wrong")
		if answer, err := client.Do(r); err == nil {
			_, _ = io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
			f.guesses.Add(1)
		}
	}
}
