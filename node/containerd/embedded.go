package containerd

import (
	"net/url"
	"path"
)

// EmbeddedAddress is where a node's own embedded registry is (node/mirror): the supervisor's port.
const EmbeddedAddress = "127.0.0.1:9345"

// Shared lists the registries whose images nodes share: RKE2's rule is that being a key of mirrors is enough.
func (r Registries) Shared() []string {
	var names []string
	for _, m := range r.Mirrors {
		names = append(names, m.Registry)
	}
	return names
}

// Embedded puts the node's own embedded registry before all mirrors of what shares says. It is asked with a certificate
// of the node, and no rewriting concerns it.
func (r Registries) Embedded(dataDir string, shares func(registry string) bool) Registries {
	agent := path.Join(dataDir, "agent")
	embedded := &url.URL{Scheme: "https", Host: EmbeddedAddress, Path: "/v2"}
	out := Registries{Configs: []Host{{
		Name: EmbeddedAddress, CAFile: path.Join(agent, "server-ca.crt"),
		CertFile: path.Join(agent, "client-rke2-controller.crt"), KeyFile: path.Join(agent, "client-rke2-controller.key"),
	}}}
	mirrored := map[string]bool{}
	for _, m := range r.Mirrors {
		mirrored[m.Registry] = true
		if shares(m.Registry) {
			m.Endpoints = append([]*url.URL{embedded}, m.Endpoints...)
		}
		out.Mirrors = append(out.Mirrors, m)
	}
	for _, h := range r.Configs {
		if h.Name == EmbeddedAddress {
			continue
		}
		out.Configs = append(out.Configs, h)
		// A registry with TLS settings has a file of its own, which containerd reads in place of the wildcard's.
		if h.Name != "*" && !mirrored[h.Name] && h.hasTLS() && shares(h.Name) {
			out.Mirrors = append(out.Mirrors, Mirror{Registry: h.Name, Endpoints: []*url.URL{embedded}, KeepDefault: true})
		}
	}
	return out
}
