package loadbalancer

import (
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkFailover is the time from the death of the server in use to the next request answered through the load
// balancer, as a client sees it that asks again at once.
func BenchmarkFailover(b *testing.B) {
	servers := []*backend{startBackend(b), startBackend(b), startBackend(b)}
	lb, _ := start(b, Config{Default: servers[0].address}, nil)
	lb.SetServers([]string{servers[0].address, servers[1].address, servers[2].address})
	of := map[string]*backend{}
	for _, s := range servers {
		lb.Healthy(s.address, true)
		of["hello from "+s.address+"\n"] = s
	}
	var took []time.Duration
	c := connect(b, lb)
	for b.Loop() {
		from, err := c.ask()
		if err != nil {
			b.Fatal(err)
		}
		victim := of[from]
		victim.kill()
		died := time.Now()
		for {
			c.Close()
			c = dialBench(b, lb)
			if from, err = c.ask(); err == nil {
				break
			}
		}
		took = append(took, time.Since(died))
		if of[from] == victim {
			b.Fatal("the dead server answered")
		}
		victim.revive()
		for _, s := range servers { // nobody reads these
			for len(s.taken) > 0 {
				<-s.taken
			}
		}
	}
	reportTimes(b, took)
}

// BenchmarkFailoverSilent is the same when the death is told by the tunnel alone: the server's sockets stay open.
func BenchmarkFailoverSilent(b *testing.B) {
	one, two := startBackend(b), startBackend(b)
	lb, _ := start(b, Config{Default: one.address}, nil)
	lb.SetServers([]string{one.address, two.address})
	lb.Healthy(one.address, true)
	lb.Healthy(two.address, true)
	var took []time.Duration
	c := connect(b, lb)
	for b.Loop() {
		from, err := c.ask()
		if err != nil {
			b.Fatal(err)
		}
		victim := one
		if from != "hello from "+one.address+"\n" {
			victim = two
		}
		died := time.Now()
		lb.Healthy(victim.address, false)
		c.expectCut(b)
		c.Close()
		c = dialBench(b, lb)
		if _, err := c.ask(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(died))
		lb.Healthy(victim.address, true)
		for len(victim.taken) > 0 {
			<-victim.taken
		}
	}
	reportTimes(b, took)
}

// dialBench is connect without a cleanup for each of very many connections.
func dialBench(b *testing.B, lb *Balancer) *client {
	b.Helper()
	conn, err := net.Dial("tcp", lb.Address())
	if err != nil {
		b.Fatal(err)
	}
	return newClient(conn)
}

func reportTimes(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2])/1e6, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100])/1e6, "p99-ms")
	b.ReportMetric(float64(took[len(took)-1])/1e6, "max-ms")
}

// BenchmarkThroughput moves the same bytes through a bare proxy of the same copy loop and through the load balancer,
// by turns, so that what else the machine does falls on both; "ratio" is the median of the pairs' ratios.
func BenchmarkThroughput(b *testing.B) {
	const size = 64 << 20
	source, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer source.Close()
	go func() {
		block := make([]byte, 256<<10)
		for {
			c, err := source.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for range size / len(block) {
					if _, err := c.Write(block); err != nil {
						return
					}
				}
			}()
		}
	}()
	bare, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer bare.Close()
	go bareProxy(bare, source.Addr().String())
	lb, _ := start(b, Config{Default: source.Addr().String()}, nil)

	buffer := make([]byte, 256<<10)
	once := func(address string) float64 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		began := time.Now()
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, buffer)
		if err != nil || n != size {
			b.Fatalf("%d bytes, %v", n, err)
		}
		return size / time.Since(began).Seconds()
	}
	var ratios, speeds []float64
	b.SetBytes(2 * size)
	for i := 0; b.Loop(); i++ {
		var plain, balanced float64
		if i%2 == 0 { // neither has the advantage of going second
			plain = once(bare.Addr().String())
			balanced = once(lb.Address())
		} else {
			balanced = once(lb.Address())
			plain = once(bare.Addr().String())
		}
		ratios, speeds = append(ratios, balanced/plain), append(speeds, balanced)
	}
	slices.Sort(ratios)
	slices.Sort(speeds)
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
	b.ReportMetric(speeds[len(speeds)/2]/1e6, "balanced-MB/s")
}

// bareProxy is a proxy with nothing but the copy loop.
func bareProxy(l net.Listener, target string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer in.Close()
			out, err := net.Dial("tcp", target)
			if err != nil {
				return
			}
			defer out.Close()
			var back sync.WaitGroup
			back.Go(func() { _ = copyHalf(in, out) })
			_ = copyHalf(out, in)
			back.Wait()
		}()
	}
}
