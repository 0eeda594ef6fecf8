package supervisorapi

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"keelson/node/pki"
	"keelson/node/token"
)

// Prefix begins the paths of the API.
const Prefix = "/v1-rke2"

// profilesPath is where Go's net/http/pprof expects to be.
const profilesPath = "/debug/pprof/"

// apiServersBudget is how long a list of API servers may take (k3s: the same).
const apiServersBudget = 5 * time.Second

// route is one path: the groups that may use it (none: anybody), its methods, and its answer.
type route struct {
	groups   []string
	users    []string // who may use it beside the groups, by certificate
	methods  []string
	answer   func(w http.ResponseWriter, r *http.Request, who identity)
	loopback bool  // programs of this machine may use it without being anybody
	long     bool  // it lasts, and is not among the requests that are counted as at work
	body     int64 // most bytes of a body; 0: Limits.BodyBytes

	slow func(*http.Request) bool // it will take a slow hash, and waits among its like; nil: never
}

// installed is what Install puts in place, whole.
type installed struct {
	accounts       map[string][]account
	clientCAs      *x509.CertPool
	bootstrapToken func(ctx context.Context, id string, secret token.Secret) (string, []string, error)
	noEtcd         bool
	noAPI          bool
	routes         map[string]route
	connect        *route // of the method CONNECT
}

// routes makes the table of routes: all there are.
func (s *Server) routes(h Handlers) map[string]route {
	read := []string{http.MethodGet, http.MethodHead}
	file := func(content []byte) func(http.ResponseWriter, *http.Request, identity) {
		return func(w http.ResponseWriter, _ *http.Request, _ identity) { text(w, string(content)) }
	}
	clientCA := h.ClientCA
	if len(clientCA) == 0 {
		clientCA = s.config.ClientCA
	}
	all := map[string]route{
		"/cacerts":                {methods: read, answer: file(h.CACerts)},
		"/ping":                   {methods: read, answer: file([]byte("pong"))},
		Prefix + "/client-ca.crt": {groups: agents(), methods: read, answer: file(clientCA)},
		Prefix + "/server-ca.crt": {groups: agents(), methods: read, answer: file(h.CACerts)},
		Prefix + "/readyz": {groups: agents(), methods: read, answer: func(w http.ResponseWriter, _ *http.Request, _ identity) {
			if !h.Ready() {
				fail(w, http.StatusServiceUnavailable, "runtime core not ready")
				return
			}
			text(w, "ok")
		}},
		Prefix + "/apiservers": {groups: agents(), methods: read, answer: s.json("apiservers", func(ctx context.Context) (any, error) {
			ctx, cancel := context.WithTimeout(ctx, apiServersBudget)
			defer cancel()
			list, err := h.APIServers(ctx)
			if list == nil {
				list = []string{} // JSON's null is no array
			}
			return list, err
		})},
		Prefix + "/server-bootstrap": {groups: servers(), methods: []string{http.MethodGet}, answer: func(w http.ResponseWriter, r *http.Request, who identity) {
			if h.NoEtcd {
				fail(w, http.StatusBadRequest, "etcd disabled")
				return
			}
			out, err := h.Bootstrap(r.Context(), who.password)
			if err != nil {
				s.refuse(w, "server-bootstrap", err)
				return
			}
			answer(w, "application/json", out)
		}},
	}
	maps.Copy(all, registryRoutes(h.Registry))
	if h.Config != nil {
		all[Prefix+"/config"] = route{groups: joiners(), methods: read, answer: func(w http.ResponseWriter, r *http.Request, _ identity) {
			out, err := h.Config(r.Context())
			if err != nil {
				s.refuse(w, "config", err)
				return
			}
			answer(w, "application/json", out)
		}}
	}
	if h.Sign != nil {
		for _, kind := range []pki.NodeCertificate{pki.ServingKubelet, pki.ClientKubelet, pki.ClientKubeProxy, pki.ClientController} {
			all[Prefix+"/"+string(kind)+".crt"] = s.certificate(h, kind)
		}
	}
	if h.Connect != nil {
		all[Prefix+"/connect"] = s.connect(h)
	}
	if h.Static != "" {
		all[staticPath] = s.static(h.Static)
	}
	for path, handler := range map[string]http.Handler{"/metrics": h.Metrics, profilesPath: h.Profiles} {
		if handler != nil {
			all[path] = route{methods: []string{http.MethodGet}, answer: func(w http.ResponseWriter, r *http.Request, _ identity) { handler.ServeHTTP(w, r) }}
		}
	}
	maps.Copy(all, s.clusterRoutes(h))
	return all
}

// find gives the route of a request.
func (in *installed) find(r *http.Request) (route, bool) {
	if r.Method == http.MethodConnect {
		if in.connect == nil {
			return route{}, false
		}
		return *in.connect, true
	}
	if in.noEtcd && strings.HasPrefix(r.URL.Path, "/db/") {
		return route{methods: []string{r.Method}, answer: func(w http.ResponseWriter, _ *http.Request, _ identity) {
			fail(w, http.StatusBadRequest, "etcd datastore disabled")
		}}, true
	}
	if found, ok := in.routes[r.URL.Path]; ok {
		return found, true
	}
	for _, folder := range []string{staticPath, profilesPath, registryPath} {
		if strings.HasPrefix(r.URL.Path, folder) {
			found, ok := in.routes[folder]
			return found, ok
		}
	}
	return route{}, false
}

// serve is every request's way: start-up, rate, size, who, what.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	from, now := source(r.RemoteAddr), s.config.Now()
	in := s.installed.Load()
	var who identity
	proven := false
	// A certificate cannot be guessed: it is looked at first and without a count of failures, which a stranger behind the
	// same address could use up. kube-apiserver's CONNECTs have no rate either: each is a connection of its own.
	if in != nil {
		who, proven = s.byCertificate(r, in)
	}
	egress := proven && r.Method == http.MethodConnect && who.has([]string{groupMasters})
	if !egress && !(proven && in.isNodes(r, who)) && !s.requests.take(from, 1, now) {
		fail(w, http.StatusTooManyRequests, "too many requests")
		return
	}
	if in == nil {
		fail(w, http.StatusServiceUnavailable, "starting")
		return
	}
	found, known := in.find(r)
	most := s.config.Limits.BodyBytes
	if found.body > 0 {
		most = found.body
	}
	if r.ContentLength > most {
		fail(w, http.StatusRequestEntityTooLarge, "request body is too large")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, most)
	groups := agents()
	if known {
		groups = found.groups
	}
	open := known && (groups == nil || found.loopback && from.IsLoopback() || proven && slices.Contains(found.users, who.name))
	// Who has a certificate that is not enough may have a token that is.
	if !open && !who.has(groups) {
		shown, ok := s.prove(w, r, in, from, now, proven)
		if !ok {
			return
		}
		if !shown.has(groups) {
			fail(w, http.StatusForbidden, "forbidden")
			return
		}
		shown.node, shown.proven = who.node, proven && who.node != ""
		who = shown
	}
	if !known && in.noAPI { // RKE2 passes such requests on to its kube-apiserver
		fail(w, http.StatusServiceUnavailable, "apiserver disabled")
		return
	}
	if !known {
		fail(w, http.StatusNotFound, "not found")
		return
	}
	if !slices.Contains(found.methods, r.Method) {
		w.Header().Set("Allow", strings.Join(found.methods, ", "))
		fail(w, http.StatusMethodNotAllowed, "method not allowed")
		return
	}
	leave, ok := s.begin(w, r, found, from)
	if !ok {
		return
	}
	defer leave()
	found.answer(w, r, who)
}

// prove looks at what can be guessed, within the limit of failures: beyond it credentials are not even looked at, so that
// guessing gains nothing. It has answered if it is not ok.
func (s *Server) prove(w http.ResponseWriter, r *http.Request, in *installed, from netip.Addr, now time.Time, proven bool) (identity, bool) {
	if !s.failures.take(from, 0, now) {
		fail(w, http.StatusTooManyRequests, "too many failed authentications")
		return identity{}, false
	}
	who, err := s.byCredential(r, in)
	switch {
	case errors.Is(err, errCredentials) && proven && r.Header.Get("Authorization") == "":
		return identity{}, true // a right certificate, of somebody who may not
	case errors.Is(err, errCredentials):
		s.failures.take(from, 1, now) // of who is told more, too
		message := "not authorized"
		if told := (*Refusal)(nil); errors.As(err, &told) {
			message = told.Message
		}
		s.config.Log.Warn("authentication failed", "address", from.String(), "path", r.URL.Path, "answer", message)
		fail(w, http.StatusUnauthorized, message)
	case errors.Is(err, errBusy):
		fail(w, http.StatusTooManyRequests, err.Error())
	case err != nil:
		s.config.Log.Warn("authentication", "error", err)
		fail(w, http.StatusServiceUnavailable, "credentials cannot be checked now")
	}
	return who, err == nil
}

// refuse answers with what a handler has for the other side, and hides all else.
func (s *Server) refuse(w http.ResponseWriter, area string, err error) {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		fail(w, refusal.Code, refusal.Message)
		return
	}
	s.hide(w, area, err)
}

// hide logs a failure under a number and answers with the number alone.
func (s *Server) hide(w http.ResponseWriter, area string, err error) {
	id := 10000 + rand.IntN(90000)
	s.config.Log.Error("request failed", "area", area, "id", id, "error", err)
	fail(w, http.StatusInternalServerError, fmt.Sprintf("%s error ID %05d", area, id))
}

func text(w http.ResponseWriter, body string) { answer(w, "text/plain", []byte(body)) }

func answer(w http.ResponseWriter, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body)
}
