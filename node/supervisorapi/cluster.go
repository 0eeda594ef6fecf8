package supervisorapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"keelson/node/token"
)

// Budgets and sizes (k3s pkg/etcd: the same budget).
const (
	membersBudget = 2 * time.Second
	authorityBody = 1 << 20 // bootstrap data with chains and many service account keys
)

// servers' routes change or show the cluster as a whole.
func (s *Server) clusterRoutes(h Handlers) map[string]route {
	put := []string{http.MethodPut}
	all := map[string]route{}
	if h.Members != nil {
		all["/db/info"] = route{groups: servers(), loopback: true, methods: []string{http.MethodGet}, answer: s.json("db/info", func(ctx context.Context) (any, error) {
			ctx, cancel := context.WithTimeout(ctx, membersBudget)
			defer cancel()
			members, err := h.Members(ctx)
			answer := map[string]any{"members": members}
			if err == nil && h.Cluster != nil {
				answer["keelson"], err = h.Cluster(ctx)
			}
			return answer, err
		})}
	}
	if h.Snapshot != nil {
		all["/db/snapshot"] = route{groups: servers(), methods: []string{http.MethodPost}, answer: func(w http.ResponseWriter, r *http.Request, _ identity) {
			h.Snapshot.ServeHTTP(w, r)
		}}
	}
	if h.RotateToken != nil {
		all[Prefix+"/token"] = s.tokenRoute(h)
	}
	if h.RotateCA != nil {
		all[Prefix+"/cert/cacerts"] = route{groups: servers(), methods: put, body: authorityBody, answer: s.change("cert", func(r *http.Request, body []byte) error {
			force := false
			if text := r.URL.Query().Get("force"); text != "" {
				var err error
				if force, err = strconv.ParseBool(text); err != nil {
					return &Refusal{http.StatusBadRequest, "force is neither true nor false"}
				}
			}
			return h.RotateCA(r.Context(), body, force)
		}, http.StatusNoContent)}
	}
	notReady := &Refusal{http.StatusServiceUnavailable, "runtime core not ready"}
	all[Prefix+"/encrypt/status"] = route{groups: servers(), methods: []string{http.MethodGet}, answer: s.json("encrypt/status", func(ctx context.Context) (any, error) {
		if h.EncryptStatus == nil || !h.Ready() {
			return nil, notReady
		}
		return h.EncryptStatus(ctx)
	})}
	all[Prefix+"/encrypt/config"] = route{groups: servers(), methods: put, answer: s.change("encrypt/config", func(r *http.Request, body []byte) error {
		if h.EncryptConfig == nil || !h.Ready() {
			return notReady
		}
		if !json.Valid(body) {
			return &Refusal{http.StatusBadRequest, "request is not JSON"}
		}
		return h.EncryptConfig(r.Context(), body)
	}, http.StatusOK)}
	return all
}

// tokenRoute changes the server token (PUT, as RKE2 has it), and ends the overlap that follows (DELETE, Keelson's own).
func (s *Server) tokenRoute(h Handlers) route {
	rotate := s.change("token", func(r *http.Request, body []byte) error {
		next, err := parseToken(body)
		if err != nil {
			return err
		}
		return h.RotateToken(r.Context(), next)
	}, http.StatusOK)
	methods := []string{http.MethodPut}
	if h.FinishRotation != nil {
		methods = append(methods, http.MethodDelete)
	}
	return route{groups: servers(), methods: methods, answer: func(w http.ResponseWriter, r *http.Request, who identity) {
		if r.Method == http.MethodPut {
			rotate(w, r, who)
			return
		}
		s.change("token", func(r *http.Request, _ []byte) error { return h.FinishRotation(r.Context(), who.password) }, http.StatusOK)(w, r, who)
	}}
}

// parseToken reads the body of PUT token. Errors never hold it.
func parseToken(body []byte) (token.Secret, error) {
	var request struct {
		NewToken *string `json:"newToken"`
	}
	if err := json.Unmarshal(body, &request); err != nil || request.NewToken == nil {
		return "", &Refusal{http.StatusBadRequest, `request is not {"newToken": "..."}`}
	}
	if *request.NewToken == "" {
		return "", nil
	}
	next := token.Secret(*request.NewToken)
	if _, err := token.ServerPassword(next); err != nil {
		return "", &Refusal{http.StatusBadRequest, "newToken: " + err.Error()}
	}
	return next, nil
}

// json answers with what get gives.
func (s *Server) json(area string, get func(context.Context) (any, error)) func(http.ResponseWriter, *http.Request, identity) {
	return func(w http.ResponseWriter, r *http.Request, _ identity) {
		value, err := get(r.Context())
		if err != nil {
			s.refuse(w, area, err)
			return
		}
		out, err := json.Marshal(value)
		if err != nil {
			s.hide(w, area, err)
			return
		}
		answer(w, "application/json", out)
	}
}

// change reads a request, has it done, and answers with no more than a code.
func (s *Server) change(area string, do func(*http.Request, []byte) error, code int) func(http.ResponseWriter, *http.Request, identity) {
	return func(w http.ResponseWriter, r *http.Request, who identity) {
		body, ok := s.body(w, r)
		if !ok {
			return
		}
		if err := do(r, body); err != nil {
			s.refuse(w, area, err)
			return
		}
		s.config.Log.Info("changed at a server's request", "area", area, "user", who.name, "address", r.RemoteAddr)
		w.WriteHeader(code)
	}
}
