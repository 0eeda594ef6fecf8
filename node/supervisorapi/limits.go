package supervisorapi

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits are all that a network of strangers may take from the listener.
type Limits struct {
	HeaderTimeout time.Duration // handshake, and headers of a request
	ReadTimeout   time.Duration // a whole request
	WriteTimeout  time.Duration // an answer, once its turn has come
	IdleTimeout   time.Duration // a connection between requests
	HeaderBytes   int
	BodyBytes     int64

	RequestsPerSecond     float64 // of one address, after a burst
	RequestBurst          int
	FailuresPerMinute     int // wrong credentials of one address; beyond, credentials are not looked at
	ConnectionsPerAddress int
	Connections           int
	InFlight              int // authenticated reads at work (k3s: the same)
	InFlightWrites        int // authenticated writes at work (k3s: the same), and as many slow checks of a name
	Waiting               int // authenticated requests that wait for their turn: reads, writes, and slow checks of a name
	WaitingPerAddress     int // of them, of one address
	Addresses             int // addresses remembered by a limiter

	Wait time.Duration // for one's turn
}

// DefaultLimits are the limits of a running server.
func DefaultLimits() Limits {
	return Limits{
		HeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 60 * time.Second,
		HeaderBytes: 16 << 10, BodyBytes: 64 << 10,
		RequestsPerSecond: 10, RequestBurst: 20, FailuresPerMinute: 5,
		ConnectionsPerAddress: 64, Connections: 1024, InFlight: 20, InFlightWrites: 10, Addresses: 4096,
		Waiting: 512, WaitingPerAddress: 32, Wait: 30 * time.Second,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	fill(&l.HeaderTimeout, d.HeaderTimeout)
	fill(&l.ReadTimeout, d.ReadTimeout)
	fill(&l.WriteTimeout, d.WriteTimeout)
	fill(&l.IdleTimeout, d.IdleTimeout)
	fill(&l.HeaderBytes, d.HeaderBytes)
	fill(&l.BodyBytes, d.BodyBytes)
	fill(&l.RequestsPerSecond, d.RequestsPerSecond)
	fill(&l.RequestBurst, d.RequestBurst)
	fill(&l.FailuresPerMinute, d.FailuresPerMinute)
	fill(&l.ConnectionsPerAddress, d.ConnectionsPerAddress)
	fill(&l.Connections, d.Connections)
	fill(&l.InFlight, d.InFlight)
	fill(&l.InFlightWrites, d.InFlightWrites)
	fill(&l.Waiting, d.Waiting)
	fill(&l.WaitingPerAddress, d.WaitingPerAddress)
	fill(&l.Addresses, d.Addresses)
	fill(&l.Wait, d.Wait)
	return l
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// source is what limits count by: an IPv4 address, or the /64 of an IPv6 one, of which one machine holds all.
func source(addr string) netip.Addr {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return netip.Addr{}
	}
	a := ap.Addr().Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// buckets are token buckets, one a source. Their number is bounded: when it is reached, the fullest go, which are
// those that have been quiet longest and lose nothing by it.
type buckets struct {
	rate  float64 // tokens a second
	burst float64
	most  int

	mu  sync.Mutex // guards what follows
	all map[netip.Addr]bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

func newBuckets(rate float64, burst, most int) *buckets {
	return &buckets{rate: rate, burst: float64(burst), most: most, all: map[netip.Addr]bucket{}}
}

// take takes n tokens of a source if it has one, and tells whether it had. With n = 0 it only asks.
func (b *buckets) take(from netip.Addr, n float64, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	have, known := b.all[from]
	if !known {
		have = bucket{tokens: b.burst, at: now}
	}
	have = b.refill(have, now)
	if have.tokens < 1 {
		return false
	}
	if n == 0 {
		return true
	}
	if !known && len(b.all) >= b.most {
		b.evict(now)
	}
	have.tokens -= n
	b.all[from] = have
	return true
}

func (b *buckets) refill(have bucket, now time.Time) bucket {
	if passed := now.Sub(have.at); passed > 0 {
		have.tokens = min(b.burst, have.tokens+b.rate*passed.Seconds())
		have.at = now
	}
	return have
}

// evict drops the buckets that are full by now, and the fullest one where none is.
func (b *buckets) evict(now time.Time) {
	var fullest netip.Addr
	most := -1.0
	for from, have := range b.all {
		tokens := b.refill(have, now).tokens
		if tokens >= b.burst {
			delete(b.all, from)
		} else if tokens > most {
			fullest, most = from, tokens
		}
	}
	if len(b.all) >= b.most {
		delete(b.all, fullest)
	}
}

// limitListener closes connections beyond a number in total and a number of one source, before anything is read.
type limitListener struct {
	net.Listener
	perSource, total int

	mu   sync.Mutex // guards what follows
	open map[netip.Addr]int
	sum  int
}

func newLimitListener(l net.Listener, perSource, total int) *limitListener {
	return &limitListener{Listener: l, perSource: perSource, total: total, open: map[netip.Addr]int{}}
}

// Accept implements net.Listener.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := source(c.RemoteAddr().String())
		if l.enter(from) {
			return &limitConn{Conn: c, leave: sync.OnceFunc(func() { l.leave(from) })}, nil
		}
		_ = c.Close()
	}
}

func (l *limitListener) enter(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sum >= l.total || l.open[from] >= l.perSource {
		return false
	}
	l.sum++
	l.open[from]++
	return true
}

func (l *limitListener) leave(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum--
	if l.open[from]--; l.open[from] == 0 {
		delete(l.open, from)
	}
}

type limitConn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *limitConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
