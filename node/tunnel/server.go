package tunnel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/rancher/remotedialer"

	"keelson/node/config"
)

// ServerConfig is what the server's side needs.
type ServerConfig struct {
	// Mode is config.EgressAgent or config.EgressDisabled; empty: agent. Nodes keep tunnels in both, for their own
	// sake; CONNECT uses them in agent only.
	Mode string
	// Self is this server's own node: it is dialled directly.
	Self string
	// NodeOf gives the node of which host is the name or an address. It must not block.
	NodeOf func(host string) (node string, ok bool)
	// Ports are those of a node's loopback that its tunnel is used for; nil: KubeletPort and StreamPort.
	Ports []uint16
	Log   *slog.Logger

	MaxSessions int           // tunnels in all; 0: 6000, for the 5,000 nodes that Kubernetes is built for
	MaxPerNode  int           // tunnels of one node, beyond which its oldest is ended; 0: 4
	MaxEgress   int           // CONNECTs at once; 0: 4096
	Silence     time.Duration // 0: DefaultSilence
}

// Server keeps the tunnels of nodes.
type Server struct {
	config ServerConfig
	egress chan struct{} // one for each CONNECT that runs

	mu    sync.Mutex
	nodes map[string][]*session // oldest first
	count int
}

// session is one tunnel.
type session struct {
	*remotedialer.Session
	ctx     context.Context
	cancel  context.CancelFunc
	streams *streams
}

// NewServer checks the configuration.
func NewServer(c ServerConfig) (*Server, error) {
	switch c.Mode {
	case "":
		c.Mode = config.EgressAgent
	case config.EgressAgent, config.EgressDisabled:
	default:
		return nil, fmt.Errorf("tunnel: egress-selector-mode %q is not supported: write %s or %s", c.Mode, config.EgressAgent, config.EgressDisabled)
	}
	if c.NodeOf == nil {
		return nil, errors.New("tunnel: NodeOf must be set")
	}
	if c.Ports == nil {
		c.Ports = []uint16{KubeletPort, StreamPort}
	}
	for field, value := range map[*int]int{&c.MaxSessions: 6000, &c.MaxPerNode: 4, &c.MaxEgress: 4096} {
		if *field <= 0 {
			*field = value
		}
	}
	if c.Silence == 0 {
		c.Silence = DefaultSilence
	}
	c.Log = orDiscard(c.Log)
	return &Server{config: c, egress: make(chan struct{}, c.MaxEgress), nodes: map[string][]*session{}}, nil
}

// ServeNode takes the websocket of a node that has proven its name, and serves it until it ends or r's context does.
// The node cannot open connections to this machine through it: asking for one ends its tunnel.
func (s *Server) ServeNode(w http.ResponseWriter, r *http.Request, node string) {
	if err := s.enter(); err != nil {
		refuse(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	defer s.leave()
	h := &hijacker{ResponseWriter: w}
	upgrader := websocket.Upgrader{
		HandshakeTimeout: upgradeTimeout,
		// Own buffers: those of net/http would bypass the line.
		ReadBufferSize: 32 << 10, WriteBufferSize: 32 << 10,
		// No browser has a node's key, so no page of another origin can misuse one.
		CheckOrigin: func(*http.Request) bool { return true },
		Error: func(_ http.ResponseWriter, _ *http.Request, code int, reason error) {
			if !h.taken {
				refuse(w, code, reason.Error())
			}
		},
	}
	ws, err := upgrader.Upgrade(h, r, nil)
	if err != nil {
		s.config.Log.Debug("node opened no tunnel", "node", node, "error", err)
		return
	}
	ws.SetReadLimit(maxMessage)
	h.line.start(s.config.Silence, writeTimeout)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	context.AfterFunc(ctx, func() { _ = ws.Close() })
	// remotedialer's session of a client, not of its server: it can ping, so a node without power is noticed here too;
	// both sides then list their living streams, so the node learns of those that ended here; and it keeps no list of
	// other servers' clients, which any node could make grow (v0.6.1 session.go, AddClient).
	one := &session{Session: remotedialer.NewClientSession(nil, ws), ctx: ctx, cancel: cancel, streams: &streams{most: maxStreams}}
	s.add(node, one)
	s.config.Log.Info("tunnel of node is up", "node", node)
	_, err = one.Serve(ctx)
	s.remove(node, one)
	cancel()
	_ = ws.Close()
	one.Close()
	one.streams.end()
	s.config.Log.Info("tunnel of node ended", "node", node, "error", err)
}

func (s *Server) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count >= s.config.MaxSessions {
		return fmt.Errorf("this server has its %d tunnels already", s.config.MaxSessions)
	}
	s.count++
	return nil
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count--
}

// add puts a tunnel behind the node's others. A node may have several, one for each name it knows this server by.
func (s *Server) add(node string, one *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := append(s.nodes[node], one)
	for len(list) > s.config.MaxPerNode {
		list[0].cancel()
		list = list[1:]
	}
	s.nodes[node] = slices.Clone(list)
}

func (s *Server) remove(node string, one *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(s.nodes[node]), func(other *session) bool { return other == one })
	if len(list) == 0 {
		delete(s.nodes, node)
		return
	}
	s.nodes[node] = list
}

// Has tells whether node has a tunnel to this server.
func (s *Server) Has(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.nodes[node]) > 0
}

// Dial opens a connection through node's newest tunnel: an older one may be left from before the node lost power. It
// returns as soon as the node has been asked; whether the node could and would dial shows at the first Read.
func (s *Server) Dial(ctx context.Context, node, network, address string) (net.Conn, error) {
	s.mu.Lock()
	list := s.nodes[node]
	s.mu.Unlock()
	err := ErrNoTunnel
	for _, one := range slices.Backward(list) {
		var conn net.Conn
		if conn, err = one.dial(ctx, network, address); err == nil {
			return conn, nil
		}
	}
	return nil, fmt.Errorf("tunnel to node %s: %w", node, err)
}

func (one *session) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := one.streams.enter(); err != nil {
		return nil, err
	}
	conn, err := one.Session.Dial(ctx, network, address)
	if err != nil {
		one.streams.leave()
		return nil, err
	}
	out := &stream{Conn: conn}
	stop := make(chan func() bool, 1)
	out.done = func() { (<-stop)(); one.streams.leave() }
	stop <- context.AfterFunc(one.ctx, func() { _ = out.Close() })
	return out, nil
}

// hijacker puts a line under the websocket that takes over the connection.
type hijacker struct {
	http.ResponseWriter
	line  *line
	taken bool
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffers, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.line, h.taken = &line{Conn: conn}, true
	return h.line, buffers, nil
}
