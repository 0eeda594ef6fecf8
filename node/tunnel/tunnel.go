// Package tunnel lets kube-apiserver reach kubelets that its machine cannot dial: every agent keeps a websocket open to
// every server, and the server opens streams through it (RKE2's /v1-rke2/connect; k3s pkg/agent/tunnel,
// pkg/daemons/control/tunnel.go). The wire is that of github.com/rancher/remotedialer, whose sessions run on both sides,
// so nodes of RKE2 can be at either end. That a tunnel is up also is the agent's sign that a server lives.
//
// Server keeps the sessions of nodes and answers kube-apiserver's CONNECT (Egress); Client keeps one tunnel to one
// server, Set one to each server of a list. Who may connect and who may use CONNECT is decided by node/supervisorapi,
// before it calls here; who the servers are comes from node/agent.
//
// It never dials an address of the machine's own beside those that Allow lets through, however a server asks: by
// default the kubelet's two ports on loopback. Of RKE2's egress-selector-mode it has "agent" (kubelets through their
// tunnels, all else directly) and "disabled" (everything directly); "cluster" and "pod", which send traffic to pods
// through tunnels as well, are refused.
//
// What remotedialer leaves open is closed around it: its write deadlines and its 60 s of silence are replaced by a
// connection that keeps its own (line.go), its copying that never ends when a paused stream is closed is woken
// (local.go), and its messages on logrus go where AdoptLogrus sends them.
package tunnel

import (
	"errors"
	"log/slog"
	"time"
)

// Path is where a server takes websockets (k3s pkg/agent/tunnel).
const Path = "/v1-rke2/connect"

// Ports of a node that servers reach through its tunnel, both on loopback.
const (
	KubeletPort = 10250
	StreamPort  = 10010 // container streams of the CRI (k3s pkg/daemons/config, StreamServerPort)
)

// Limits of one tunnel and of all.
const (
	// maxMessage is the largest message taken. remotedialer sends what one Write got, and all that write into it copy
	// in pieces of 32 KiB; its list of living streams takes 8 bytes each.
	maxMessage = 1 << 20
	// maxStreams is how many streams one tunnel carries.
	maxStreams = 1024
	// dialTimeout is for one TCP connection to a kubelet or any other address; handshakeTimeout for one attempt to
	// open a tunnel (remotedialer's HandshakeTimeOut).
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	// upgradeTimeout is for a server's answer to a websocket (remotedialer server.go).
	upgradeTimeout = 5 * time.Second
	// DefaultSilence is how long a tunnel may bring no byte. Both sides ping every 5 s (remotedialer.PingWriteInterval),
	// so one pong may be late; remotedialer's own 60 s would keep agents on a server without power for a minute.
	DefaultSilence = 10 * time.Second
	// writeTimeout is how long one write may hang before its tunnel is given up.
	writeTimeout = 10 * time.Second
)

// ErrNoTunnel says that a node has no tunnel to this server.
var ErrNoTunnel = errors.New("node has no tunnel to this server")

var (
	errStreams = errors.New("too many streams through one tunnel")
	errEnded   = errors.New("tunnel has ended")
)

func orDiscard(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}
