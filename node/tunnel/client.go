package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	"github.com/rancher/remotedialer"
)

// Config says which server to keep a tunnel to, and what may be dialled for it.
type Config struct {
	Server string // host:port of the supervisor
	// TLS gives the client certificate and the CA, asked before each attempt so that renewed ones are used.
	TLS func() (*tls.Config, error)
	// Allow tells whether an address may be dialled; nil: Loopback(KubeletPort, StreamPort).
	Allow func(network, address string) bool
	// OnState is told of each change, and of the first outcome: a tunnel is up, or could not be opened. It is not told
	// of an end that ctx asked for. It is called from Run and must not block.
	OnState func(up bool)
	Log     *slog.Logger
	Silence time.Duration // 0: DefaultSilence; less than remotedialer's ping interval of 5 s breaks idle tunnels
	// Retry and RetryMost bound the wait between attempts, which doubles; 0: 100 ms and 5 s (k3s: always 3 s).
	Retry, RetryMost time.Duration
}

// Client keeps one tunnel to one server.
type Client struct {
	config Config
	state  int // of OnState: 0 not told yet, 1 up, -1 down
}

// NewClient checks the configuration; nothing is dialled yet.
func NewClient(c Config) (*Client, error) {
	if _, _, err := ParseAddress(c.Server); err != nil {
		return nil, fmt.Errorf("tunnel: server: %w", err)
	}
	if c.TLS == nil {
		return nil, errors.New("tunnel: TLS must be set")
	}
	if c.Allow == nil {
		c.Allow = Loopback(KubeletPort, StreamPort)
	}
	if c.OnState == nil {
		c.OnState = func(bool) {}
	}
	if c.Silence == 0 {
		c.Silence = DefaultSilence
	}
	if c.Retry <= 0 {
		c.Retry = 100 * time.Millisecond
	}
	if c.RetryMost < c.Retry {
		c.RetryMost = max(c.Retry, 5*time.Second)
	}
	c.Log = orDiscard(c.Log).With("server", c.Server)
	return &Client{config: c}, nil
}

// Run keeps the tunnel until ctx ends, and then returns nil, with every stream closed.
func (c *Client) Run(ctx context.Context) error {
	wait, said := c.config.Retry, ""
	for {
		lived, err := c.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		c.tell(false)
		if lived > c.config.RetryMost { // a tunnel that ends at once, again and again, is no reason to hurry
			wait, said = c.config.Retry, ""
		}
		if text := err.Error(); text != said {
			c.config.Log.Warn("tunnel is down", "error", err)
			said = text
		}
		timer := time.NewTimer(jitter(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		wait = min(2*wait, c.config.RetryMost)
	}
}

// jitter gives between half of d and d, so that the agents of a server that comes back do not come all at once.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1)
}

func (c *Client) tell(up bool) {
	state := -1
	if up {
		state = 1
	}
	if state != c.state {
		c.state = state
		c.config.OnState(up)
	}
}

// once opens a tunnel and serves it until it ends, which is always an error; lived is for how long it was up.
func (c *Client) once(ctx context.Context) (lived time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ws, under, err := c.open(ctx)
	if err != nil {
		return 0, err
	}
	since := time.Now()
	ws.SetReadLimit(maxMessage)
	under.start(c.config.Silence, writeTimeout)
	g := &gate{session: ctx, allow: c.config.Allow, streams: &streams{most: maxStreams}, refused: func(network, address string) {
		c.config.Log.Warn("server asked for an address that is not allowed", "network", network, "address", address)
	}}
	session := remotedialer.NewClientSessionWithDialer(func(string, string) bool { return true }, ws, g.dial)
	c.config.Log.Info("tunnel is up")
	c.tell(true)
	_, err = session.Serve(ctx)
	cancel()
	_ = ws.Close() // first, so that nothing of the session waits for a write
	session.Close()
	g.streams.end()
	return time.Since(since), fmt.Errorf("tunnel ended: %w", err)
}

// open does TCP, TLS and the websocket's handshake, which ctx cuts short.
func (c *Client) open(ctx context.Context) (*websocket.Conn, *line, error) {
	conf, err := c.config.TLS()
	if err != nil {
		return nil, nil, fmt.Errorf("certificate for the tunnel: %w", err)
	}
	conf = conf.Clone()
	// A server that also speaks HTTP/2, as RKE2's does, would choose it, and websockets need HTTP/1.1.
	conf.NextProtos = []string{"http/1.1"}
	if conf.ServerName == "" {
		conf.ServerName, _, _ = ParseAddress(c.config.Server) // checked by NewClient
	}
	var under *line
	dialer := websocket.Dialer{
		HandshakeTimeout: handshakeTimeout,
		ReadBufferSize:   32 << 10, WriteBufferSize: 32 << 10,
		NetDialTLSContext: func(dialling context.Context, network, address string) (net.Conn, error) {
			d := tls.Dialer{NetDialer: &net.Dialer{Timeout: handshakeTimeout}, Config: conf}
			conn, err := d.DialContext(dialling, network, address)
			if err != nil {
				return nil, err
			}
			context.AfterFunc(ctx, func() { _ = conn.Close() })
			under = &line{Conn: conn}
			return under, nil
		},
	}
	ws, answer, err := dialer.DialContext(ctx, "wss://"+c.config.Server+Path, http.Header{})
	if errors.Is(err, websocket.ErrBadHandshake) && answer != nil {
		body, _ := io.ReadAll(io.LimitReader(answer.Body, 512))
		return nil, nil, fmt.Errorf("open tunnel: server answers %s: %q", answer.Status, strings.TrimSpace(string(body)))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open tunnel: %w", err)
	}
	return ws, under, nil
}
