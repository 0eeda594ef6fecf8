package supervisorapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Prefix begins the paths of the API.
const Prefix = "/v1-rke2"

// apiServersBudget is how long a list of API servers may take (k3s: the same).
const apiServersBudget = 5 * time.Second

// route is one path: the groups that may use it (none: anybody), its methods, and its answer.
type route struct {
	groups  []string
	methods []string
	answer  func(w http.ResponseWriter, r *http.Request, who identity)
}

// installed is what Install puts in place, whole.
type installed struct {
	accounts map[string]account
	routes   map[string]route
}

// install makes the table of routes: all there are.
func (s *Server) install(h Handlers) *installed {
	read := []string{http.MethodGet, http.MethodHead}
	in := &installed{
		accounts: s.accounts(h.Users),
		routes: map[string]route{
			"/cacerts": {nil, read, func(w http.ResponseWriter, _ *http.Request, _ identity) {
				text(w, string(h.CACerts))
			}},
			"/ping": {nil, read, func(w http.ResponseWriter, _ *http.Request, _ identity) {
				text(w, "pong")
			}},
			Prefix + "/readyz": {agents(), read, func(w http.ResponseWriter, _ *http.Request, _ identity) {
				if !h.Ready() {
					fail(w, http.StatusServiceUnavailable, "runtime core not ready")
					return
				}
				text(w, "ok")
			}},
			Prefix + "/apiservers": {agents(), read, func(w http.ResponseWriter, r *http.Request, _ identity) {
				ctx, cancel := context.WithTimeout(r.Context(), apiServersBudget)
				defer cancel()
				list, err := h.APIServers(ctx)
				if err != nil {
					s.hide(w, "apiservers", err)
					return
				}
				if list == nil {
					list = []string{} // JSON's null is no array
				}
				out, err := json.Marshal(list)
				if err != nil {
					s.hide(w, "apiservers", err)
					return
				}
				answer(w, "application/json", out)
			}},
			Prefix + "/server-bootstrap": {servers(), []string{http.MethodGet}, func(w http.ResponseWriter, r *http.Request, who identity) {
				if who.password == "" { // a certificate cannot open the record
					fail(w, http.StatusForbidden, "forbidden")
					return
				}
				out, err := h.Bootstrap(r.Context(), who.password)
				if err != nil {
					s.hide(w, "server-bootstrap", err)
					return
				}
				answer(w, "application/json", out)
			}},
		},
	}
	maps.Copy(in.routes, s.joining(h))
	return in
}

// serve is every request's way: rate, size, start-up, who, what.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	from, now := source(r.RemoteAddr), s.config.Now()
	if !s.requests.take(from, 1, now) {
		fail(w, http.StatusTooManyRequests, "too many requests")
		return
	}
	if r.ContentLength > s.config.Limits.BodyBytes {
		fail(w, http.StatusRequestEntityTooLarge, "request body is too large")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, s.config.Limits.BodyBytes)
	in := s.installed.Load()
	if in == nil {
		fail(w, http.StatusServiceUnavailable, "starting")
		return
	}
	found, known := in.routes[r.URL.Path]
	if known && found.groups == nil {
		s.answer(w, r, found, identity{})
		return
	}
	// Beyond the limit of failures credentials are not even looked at, so that guessing gains nothing.
	if !s.failures.take(from, 0, now) {
		fail(w, http.StatusTooManyRequests, "too many failed authentications")
		return
	}
	who, err := s.authenticate(r, in.accounts)
	if errors.Is(err, errCredentials) {
		s.failures.take(from, 1, now)
		s.config.Log.Warn("authentication failed", "address", from.String(), "path", r.URL.Path)
		fail(w, http.StatusUnauthorized, "not authorized")
		return
	}
	groups := agents()
	if known {
		groups = found.groups
	}
	if !who.has(groups) {
		fail(w, http.StatusForbidden, "forbidden")
		return
	}
	if !known {
		fail(w, http.StatusNotFound, "not found")
		return
	}
	select {
	case s.inFlight <- struct{}{}:
		defer func() { <-s.inFlight }()
	default:
		fail(w, http.StatusTooManyRequests, "too many requests")
		return
	}
	s.answer(w, r, found, who)
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, found route, who identity) {
	if !slices.Contains(found.methods, r.Method) {
		w.Header().Set("Allow", strings.Join(found.methods, ", "))
		fail(w, http.StatusMethodNotAllowed, "method not allowed")
		return
	}
	found.answer(w, r, who)
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
