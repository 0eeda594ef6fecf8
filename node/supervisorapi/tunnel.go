package supervisorapi

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"
)

// connect is the route of tunnels. They are hijacked, which ends all deadlines of the listener.
func (s *Server) connect(h Handlers) route {
	return route{groups: []string{groupNodes}, methods: []string{http.MethodGet}, long: true, answer: func(w http.ResponseWriter, r *http.Request, who identity) {
		if !who.proven || who.node == "" {
			fail(w, http.StatusForbidden, "forbidden")
			return
		}
		unhurried(w, r)
		h.Connect(w, r, who.node)
	}}
}

// egress is the route of CONNECT, whatever its target; nil where it is not served.
func (s *Server) egress(h Handlers) *route {
	if h.Egress == nil {
		return nil
	}
	return &route{groups: []string{groupMasters}, methods: []string{http.MethodConnect}, long: true, answer: func(w http.ResponseWriter, r *http.Request, who identity) {
		if !who.proven {
			fail(w, http.StatusForbidden, "forbidden")
			return
		}
		unhurried(w, r)
		h.Egress.ServeHTTP(w, r)
	}}
}

// unhurried exempts a request that may last from the listener's deadlines and from its count of connections.
func unhurried(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	_ = errors.Join(c.SetReadDeadline(time.Time{}), c.SetWriteDeadline(time.Time{})) // HTTP/1.1 always can
	release(r)
}

const staticPath = "/static/"

// static serves files of a folder to anybody. Nothing outside is reached, by links neither (os.Root), and no folder is
// listed.
func (s *Server) static(folder string) route {
	return route{methods: []string{http.MethodGet, http.MethodHead}, answer: func(w http.ResponseWriter, r *http.Request, _ identity) {
		root, err := os.OpenRoot(folder)
		if err != nil {
			fail(w, http.StatusNotFound, "not found")
			return
		}
		defer root.Close()
		name := strings.TrimPrefix(r.URL.Path, staticPath)
		info, err := root.Stat(name)
		if !fs.ValidPath(name) || err != nil || !info.Mode().IsRegular() {
			fail(w, http.StatusNotFound, "not found")
			return
		}
		f, err := root.Open(name)
		if err != nil {
			fail(w, http.StatusNotFound, "not found")
			return
		}
		defer f.Close()
		http.ServeContent(w, r, name, info.ModTime(), f)
	}}
}
