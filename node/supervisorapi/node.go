package supervisorapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"

	"keelson/node/nodepassword"
	"keelson/node/pki"
	"keelson/node/signing"
	"keelson/node/token"
)

// How RKE2's agents say who they are (k3s pkg/agent/config).
const (
	headerName     = "rke2-Node-Name"
	headerPassword = "rke2-Node-Password"
	headerAddress  = "rke2-Node-IP"
)

// maxAddresses is more than the addresses a node can be reached at, of two families, inside and outside.
const maxAddresses = 16

// certificate is the route that issues one kind. RKE2's old form, in which the server makes a key for all nodes and
// hands it out, is not served: GET is no method of it.
func (s *Server) certificate(h Handlers, kind pki.NodeCertificate) route {
	slow := func(r *http.Request) bool {
		return signing.OfNode(kind) && h.NodeQuick != nil && !h.NodeQuick(r.Header.Get(headerName), token.Secret(r.Header.Get(headerPassword)))
	}
	return route{groups: agents(), methods: []string{http.MethodPost}, slow: slow, answer: func(w http.ResponseWriter, r *http.Request, who identity) {
		var node string
		var addresses []netip.Addr
		if signing.OfNode(kind) {
			var err error
			if addresses, err = parseAddresses(r.Header.Get(headerAddress)); err != nil {
				fail(w, http.StatusInternalServerError, err.Error()) // RKE2's code for it
				return
			}
			if node = s.admit(w, r, h, who); node == "" {
				return
			}
		}
		request, ok := s.body(w, r)
		if !ok {
			return
		}
		chain, err := h.Sign(kind, node, addresses, request)
		switch {
		case errors.Is(err, pki.ErrRequest), errors.Is(err, signing.ErrRequest):
			fail(w, http.StatusBadRequest, err.Error())
		case err != nil:
			s.hide(w, string(kind), err)
		default:
			text(w, string(chain))
		}
	}}
}

// admit checks that a machine is the node it says it is, and returns the node's name. It has answered if not.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, h Handlers, who identity) string {
	node, password := r.Header.Get(headerName), token.Secret(r.Header.Get(headerPassword))
	switch {
	case node == "" || password == "":
		fail(w, http.StatusBadRequest, "headers "+headerName+" and "+headerPassword+" must be set")
		return ""
	case !signing.ValidNode(node):
		fail(w, http.StatusBadRequest, headerName+" is not a DNS name of lower case letters, digits, dots and dashes")
		return ""
	case who.proven && who.node != node:
		fail(w, http.StatusBadRequest, "the certificate is another node's than "+headerName+" says")
		return ""
	case h.NodePassword == nil:
		fail(w, http.StatusServiceUnavailable, "runtime core not ready")
		return ""
	}
	if err := h.NodePassword(r.Context(), node, password, who.proven); err != nil {
		switch {
		case errors.Is(err, nodepassword.ErrRejected):
			err = &Refusal{http.StatusForbidden, err.Error()}
		case errors.Is(err, nodepassword.ErrNoNode): // the agent asks again with the token alone
			err = &Refusal{http.StatusUnauthorized, err.Error()}
		case errors.Is(err, nodepassword.ErrNotReady):
			err = &Refusal{http.StatusServiceUnavailable, err.Error()}
		}
		s.refuse(w, "node password", err)
		return ""
	}
	return node
}

// parseAddresses reads a list with commas.
func parseAddresses(list string) ([]netip.Addr, error) {
	if list == "" {
		return nil, nil
	}
	var all []netip.Addr
	for part := range strings.SplitSeq(list, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(part))
		if err != nil || a.Zone() != "" {
			return nil, errors.New(headerAddress + " is not a list of addresses with commas between them")
		}
		if all = append(all, a.Unmap()); len(all) > maxAddresses {
			return nil, fmt.Errorf("%s has more than %d addresses", headerAddress, maxAddresses)
		}
	}
	return all, nil
}

// body reads a request whole. It has answered if it cannot.
func (s *Server) body(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	data, err := io.ReadAll(r.Body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		fail(w, http.StatusRequestEntityTooLarge, "request body is too large")
	case err != nil:
		fail(w, http.StatusBadRequest, "request body cannot be read")
	}
	return data, err == nil
}
