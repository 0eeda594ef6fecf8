package supervisorapi

import (
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"
)

// registryPath is that of the OCI distribution API.
const registryPath = "/v2/"

// userController is the name by which a node's containerd asks its own node, and nodes of RKE2 ask each other (k3s
// pkg/spegel, ClientCertFile).
const userController = "system:rke2-controller"

// registryRoutes are those of the embedded registry: for nodes alone, and by certificate. The registry bounds its own
// requests, which may last.
//
// p2p is where RKE2's agents ask for libp2p peers to begin with (k3s pkg/spegel, bootstrap.go). There is no libp2p
// here: an empty list, which they take for what it says and ask again later.
func registryRoutes(registry http.Handler) map[string]route {
	if registry == nil {
		return nil
	}
	read := []string{http.MethodGet, http.MethodHead}
	blobs := route{groups: []string{groupNodes}, users: []string{userController}, methods: read, long: true, answer: func(w http.ResponseWriter, r *http.Request, who identity) {
		if !who.proven { // a bootstrap token's group, say
			fail(w, http.StatusForbidden, "forbidden")
			return
		}
		registry.ServeHTTP(w, r)
	}}
	return map[string]route{
		registryPath:                          blobs,
		strings.TrimSuffix(registryPath, "/"): blobs,
		Prefix + "/p2p": {groups: agents(), users: []string{userController}, methods: read, answer: func(w http.ResponseWriter, _ *http.Request, _ identity) {
			answer(w, "application/json", []byte("[]"))
		}},
	}
}

// isNodes tells whether a request of a certificate's owner is a node's for images. It has no rate: an image is dozens of
// requests, which the registry bounds.
func (in *installed) isNodes(r *http.Request, who identity) bool {
	found, ok := in.find(r)
	return ok && found.long && slices.Contains(found.users, userController) && (who.has(found.groups) || slices.Contains(found.users, who.name))
}

// InstallRegistry lets the listener of an agent answer: for the embedded registry, and nothing else. A second call
// replaces the first, for another authority.
func (s *Server) InstallRegistry(clientCA []byte, registry http.Handler) error {
	in := &installed{routes: registryRoutes(registry), clientCAs: x509.NewCertPool()}
	if registry == nil || !in.clientCAs.AppendCertsFromPEM(clientCA) {
		return errors.New("supervisor api: a registry, and a client CA in PEM form must be given")
	}
	in.routes["/ping"] = route{methods: []string{http.MethodGet, http.MethodHead}, answer: func(w http.ResponseWriter, _ *http.Request, _ identity) { text(w, "pong") }}
	s.installed.Store(in)
	return nil
}
