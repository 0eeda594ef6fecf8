package chartsource

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"keelson/node/containerd"
)

// credentials tells what to show to a registry or a mirror: what the chart's own Secrets have for it, and otherwise what
// registries.yaml has.
func (s *Source) credentials(r Request) (func(host string) (user, secret string, err error), error) {
	known := map[string]containerd.Auth{}
	registries, err := s.cfg.Registries()
	if err != nil {
		return nil, err
	}
	for _, h := range registries.Configs {
		if h.Auth != nil {
			known[serverOf(h.Name)] = *h.Auth
		}
	}
	if err := addDocker(known, r.DockerConfig); err != nil {
		return nil, err
	}
	if r.Username != "" {
		host, _, _ := strings.Cut(r.reference(), "/")
		known[serverOf(host)] = containerd.Auth{Username: r.Username, Password: r.Password}
	}
	return func(host string) (string, string, error) {
		auth, ok := known[serverOf(host)]
		if !ok {
			return "", "", nil
		}
		return pair(auth)
	}, nil
}

// addDocker adds what a .dockerconfigjson has.
func addDocker(known map[string]containerd.Auth, content []byte) error {
	if len(content) == 0 {
		return nil
	}
	var config struct {
		Auths map[string]struct {
			Username, Password, Auth string
			IdentityToken            string `json:"identitytoken"`
		} `json:"auths"`
	}
	if err := json.Unmarshal(content, &config); err != nil {
		return errors.New("spec.dockerRegistrySecret: its .dockerconfigjson is not in JSON") // the parser may quote it
	}
	for name, a := range config.Auths {
		known[serverOf(name)] = containerd.Auth{Username: a.Username, Password: a.Password, Auth: a.Auth, IdentityToken: a.IdentityToken}
	}
	return nil
}

// serverOf is the host that credentials are kept under: docker's files name some by an address, and docker.io by three names.
func serverOf(name string) string {
	if u, err := url.Parse(name); err == nil && u.Host != "" {
		name = u.Host
	}
	name, _, _ = strings.Cut(name, "/")
	if name == dockerName || name == "index.docker.io" {
		return dockerServer
	}
	return name
}

// pair gives credentials in the form that containerd's resolver takes: a token has no user.
func pair(a containerd.Auth) (user, secret string, err error) {
	switch {
	case a.IdentityToken != "":
		return "", a.IdentityToken, nil
	case a.Username != "" || a.Auth == "":
		return a.Username, a.Password, nil
	}
	text, err := base64.StdEncoding.DecodeString(a.Auth)
	user, secret, ok := strings.Cut(string(text), ":")
	if err != nil || !ok {
		return "", "", fmt.Errorf("the credentials of a registry have an auth that is not user:password in base64")
	}
	return user, strings.TrimRight(secret, "\x00"), nil
}
