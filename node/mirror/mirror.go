// Package mirror is the embedded registry of a node: the read-only part of the OCI distribution API
// (opencontainers/distribution-spec, spec.md, "Pull") over what this machine's containerd holds, and for this machine's
// containerd alone also over what other nodes of the cluster hold.
//
// RKE2 has spegel (github.com/spegel-org/spegel) find images over libp2p. Here nodes are known by a label on their Node
// (peers.go) and asked directly, over the same API. A node answers others from its own disk only, so nothing is passed
// around in circles. What a peer sends is believed only if its digest is right; what a tag means is taken from a peer,
// as RKE2 does, but for "latest".
//
// It listens nowhere (node/supervisorapi does, which also says who may ask) and writes nothing. What registries it is for
// comes from registries.yaml by way of node/worker; node/server and node/agent make one.
package mirror

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// HeaderPeer marks a question of one node to another, which is answered from the disk alone. Its name is spegel's, so
// that nodes of RKE2 in the same cluster do so too.
const HeaderPeer = "X-Spegel-Mirrored"

// SystemRegistry is the host in the names of the image's own images, which every node has from its verified root.
const SystemRegistry = "registry.keelson.internal"

// Config is what a mirror needs. All but Limits must be set.
type Config struct {
	Registries []string // keys of registries.yaml's mirrors: host[:port], or "*" for all
	Content    Content
	Images     Images
	Peers      func() []string             // host:port of the other nodes
	TLS        func() (*tls.Config, error) // of connections to them, asked at each
	Log        *slog.Logger
	Limits     Limits // zero: DefaultLimits
}

// Limits are what asking and answering may take.
type Limits struct {
	Local, Remote int           // requests at work: of this machine, and of all others
	Abreast       int           // peers that are asked at a time for one thing
	Search        time.Duration // of finding who has a thing, in all
	Stall         time.Duration // a transfer without progress, in either direction
	Ban           time.Duration // of a peer that sent what its digest does not fit
	Remembered    int           // repositories whose holder is remembered
}

// DefaultLimits are the limits of a running node.
func DefaultLimits() Limits {
	return Limits{Local: 32, Remote: 32, Abreast: 16, Search: 500 * time.Millisecond, Stall: 15 * time.Second, Ban: 10 * time.Minute, Remembered: 256}
}

// Mirror is an http.Handler for /v2/.
type Mirror struct {
	config        Config
	local, remote chan struct{}
	client        *http.Client
	memory        memory
}

// New checks the configuration.
func New(c Config) (*Mirror, error) {
	if c.Content == nil || c.Images == nil || c.Peers == nil || c.TLS == nil || c.Log == nil {
		return nil, errors.New("mirror: content, images, peers, TLS and a log are needed")
	}
	if c.Limits == (Limits{}) {
		c.Limits = DefaultLimits()
	}
	m := &Mirror{config: c, local: make(chan struct{}, c.Limits.Local), remote: make(chan struct{}, c.Limits.Remote)}
	m.client = newClient(c)
	m.memory = memory{most: c.Limits.Remembered, ban: c.Limits.Ban, holders: map[string]string{}, banned: map[string]time.Time{}}
	return m, nil
}

// Shares tells whether images of a registry are shared.
func Shares(registries []string, registry string) bool {
	host := hostname(registry)
	if host == SystemRegistry || host == "localhost" {
		return false
	}
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && ip.IsLoopback() {
		return false // each machine's own
	}
	return slices.Contains(registries, registry) || slices.Contains(registries, "*")
}

// ServeHTTP implements http.Handler.
func (m *Mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		refuse(w, r, http.StatusMethodNotAllowed, "UNSUPPORTED", "only GET and HEAD are served")
		return
	}
	if r.URL.Path == "/v2" || r.URL.Path == "/v2/" {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte("{}"))
		return
	}
	q, err := parse(r.URL.Path, r.URL.Query().Get("ns"))
	if err != nil {
		refuse(w, r, http.StatusNotFound, "NAME_UNKNOWN", err.Error())
		return
	}
	if !Shares(m.config.Registries, q.registry) || q.tag == "latest" {
		refuse(w, r, http.StatusNotFound, "NAME_UNKNOWN", "not shared")
		return
	}
	own, gate := isOwn(r), m.remote
	if own {
		gate = m.local
	}
	select {
	case gate <- struct{}{}:
		defer func() { <-gate }()
	default:
		refuse(w, r, http.StatusTooManyRequests, "TOOMANYREQUESTS", "too many requests")
		return
	}
	if one := oneRange(r.Header.Get("Range")); one == "" || q.manifest {
		r.Header.Del("Range")
	}
	p := newPaced(w, m.config.Limits.Stall)
	// What a tag means here says nothing about what it means now: containerd asks because it wants to know.
	if (q.tag == "" || !own) && m.fromDisk(p, r, q) {
		return
	}
	if own && m.fromPeers(p, r, q) {
		return
	}
	p.progress() // the search may have taken all the time that this writer had
	refuse(w, r, http.StatusNotFound, "BLOB_UNKNOWN", "no node has it")
}

// isOwn tells whether this machine's containerd asks.
func isOwn(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && from.Addr().Unmap().IsLoopback() && r.Header.Get(HeaderPeer) == ""
}

// refuse answers with an error of the distribution API.
func refuse(w http.ResponseWriter, r *http.Request, code int, name, message string) {
	type problem struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	// Strings always marshal.
	body, _ := json.Marshal(map[string][]problem{"errors": {{name, message}}})
	for _, name := range passedOn() { // of an answer that came to nothing
		w.Header().Del(name)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}
