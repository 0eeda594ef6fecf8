package supervisorapi

import (
	"encoding/json"
	"net/http"
	"slices"
)

// joining are the routes of what a server must know before it joins: the cluster's settings and etcd's members. A
// handler that is not set leaves its path unserved.
func (s *Server) joining(h Handlers) map[string]route {
	all := map[string]route{}
	if h.Config != nil {
		// Agents ask with the agents' password. A server that joins has proven more than that.
		all[Prefix+"/config"] = route{slices.Concat(agents(), servers()), []string{http.MethodGet, http.MethodHead},
			func(w http.ResponseWriter, r *http.Request, _ identity) {
				out, err := h.Config(r.Context())
				if err != nil {
					s.hide(w, "config", err)
					return
				}
				answer(w, "application/json", out)
			}}
	}
	if h.Members != nil {
		all["/db/info"] = route{servers(), []string{http.MethodGet}, func(w http.ResponseWriter, r *http.Request, _ identity) {
			members, err := h.Members(r.Context())
			if err != nil {
				s.hide(w, "db/info", err)
				return
			}
			out, err := json.Marshal(map[string]any{"members": members})
			if err != nil {
				s.hide(w, "db/info", err)
				return
			}
			answer(w, "application/json", out)
		}}
	}
	return all
}
