package containerd

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Registries is the content of registries.yaml (k3s pkg/agent/containerd, rancher/wharfie pkg/registries).
type Registries struct {
	Mirrors []Mirror
	Configs []Host
}

// Mirror says where the images of one registry are looked for.
type Mirror struct {
	Registry  string     // host[:port], or "*" for every registry that is not named
	Endpoints []*url.URL // in the order they are tried
	Prefix    string     // path that rewrite puts before every repository, without slashes around it
	// KeepDefault leaves the registry itself behind the endpoints even where others lose it.
	KeepDefault bool
}

// Host says how to talk to one registry or mirror.
type Host struct {
	Name               string // host[:port], or "*" for every host that is not named
	CAFile             string
	CertFile, KeyFile  string
	InsecureSkipVerify bool
	Auth               *Auth
}

// Auth is a set of credentials. Its text never goes into a message.
type Auth struct {
	Username, Password, Auth, IdentityToken string
}

// String keeps credentials out of messages.
func (Auth) String() string { return "redacted" }

// GoString keeps credentials out of messages.
func (Auth) GoString() string { return "redacted" }

// LoadRegistries reads registries.yaml. Its errors name file, line and key, all of them at once.
func LoadRegistries(file string, content []byte) (Registries, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(content, &doc); err != nil {
		return Registries{}, fmt.Errorf("%s: %w", file, err)
	}
	if len(doc.Content) == 0 {
		return Registries{}, nil
	}
	p := &parser{file: file}
	var r Registries
	p.mapping(doc.Content[0], "", map[string]func(string, *yaml.Node){
		"mirrors": func(at string, node *yaml.Node) {
			p.each(node, at, func(name, at string, node *yaml.Node) { r.Mirrors = append(r.Mirrors, p.mirror(name, at, node)) })
		},
		"configs": func(at string, node *yaml.Node) {
			p.each(node, at, func(name, at string, node *yaml.Node) { r.Configs = append(r.Configs, p.host(name, at, node)) })
		},
	})
	if err := errors.Join(p.problems...); err != nil {
		return Registries{}, err
	}
	return r, nil
}

func (p *parser) mirror(name, at string, node *yaml.Node) Mirror {
	m := Mirror{Registry: p.hostName(name, at, node)}
	p.mapping(node, at, map[string]func(string, *yaml.Node){
		"endpoint": func(at string, node *yaml.Node) {
			node = follow(node)
			if node.Kind != yaml.SequenceNode {
				p.fail(node, at, "is not a list; write - https://host under it")
				return
			}
			for _, item := range node.Content {
				endpoint, err := parseEndpoint(p.text(item, at))
				if err != nil {
					p.fail(item, at, err.Error())
					continue
				}
				if !hasEndpoint(m.Endpoints, endpoint) {
					m.Endpoints = append(m.Endpoints, endpoint)
				}
			}
		},
		"rewrite": func(at string, node *yaml.Node) {
			rules := 0
			p.each(node, at, func(pattern, at string, node *yaml.Node) {
				rules++
				prefix, err := parseRewrite(pattern, p.text(node, at))
				if err == nil && rules > 1 {
					err = errors.New("is a second rule; this version takes one")
				}
				if err != nil {
					p.fail(node, at, err.Error())
				}
				m.Prefix = prefix
			})
		},
	})
	return m
}

func (p *parser) host(name, at string, node *yaml.Node) Host {
	h := Host{Name: p.hostName(name, at, node)}
	text := func(target *string) func(string, *yaml.Node) {
		return func(at string, node *yaml.Node) { *target = p.text(node, at) }
	}
	file := func(target *string) func(string, *yaml.Node) {
		return func(at string, node *yaml.Node) {
			if *target = p.text(node, at); !path.IsAbs(*target) {
				p.fail(node, at, "is not an absolute path")
			}
		}
	}
	p.mapping(node, at, map[string]func(string, *yaml.Node){
		"auth": func(at string, node *yaml.Node) {
			if name == "*" {
				p.fail(node, at, "containerd keeps credentials for named hosts only; write this entry for each host")
			}
			h.Auth = &Auth{}
			p.mapping(node, at, map[string]func(string, *yaml.Node){
				"username": text(&h.Auth.Username), "password": text(&h.Auth.Password),
				"auth": text(&h.Auth.Auth), "identity_token": text(&h.Auth.IdentityToken),
			})
		},
		"tls": func(at string, node *yaml.Node) {
			p.mapping(node, at, map[string]func(string, *yaml.Node){
				"ca_file": file(&h.CAFile), "cert_file": file(&h.CertFile), "key_file": file(&h.KeyFile),
				"insecure_skip_verify": func(at string, node *yaml.Node) {
					if err := node.Decode(&h.InsecureSkipVerify); err != nil {
						p.fail(node, at, "is neither true nor false")
					}
				},
			})
			if (h.CertFile == "") != (h.KeyFile == "") {
				p.fail(node, at, "has one of cert_file and key_file; give both or none")
			}
		},
	})
	return h
}

func (p *parser) hostName(name, at string, node *yaml.Node) string {
	u, err := url.Parse("https://" + name)
	if name != "*" && (err != nil || u.Host != name || name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "_*")) {
		p.fail(node, at, "is not a registry's name; write host or host:port, without scheme and path, or \"*\"")
	}
	return name
}

// parseEndpoint reads a mirror's address by k3s's rules: https where no scheme is given, but http for this very machine
// on a port of its own; a path other than /v2 is the root of the API.
func parseEndpoint(text string) (*url.URL, error) {
	if text == "" {
		return nil, errors.New("is empty; write https://host")
	}
	bare := !strings.Contains(text, "://")
	if bare {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		return nil, errors.New("is not a URL; write https://host[:port][/path]")
	}
	if u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("has a scheme that is neither https nor http")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("has more than host, port and path; credentials belong under configs")
	}
	if bare && isLocal(u.Hostname()) && u.Port() != "" && u.Port() != "443" {
		u.Scheme = "http"
	}
	switch u.Path = strings.TrimSuffix(u.Path, "/"); u.Path {
	case "":
		u.Path = "/v2"
	}
	return u, nil
}

func isLocal(host string) bool { return host == "localhost" || host == "127.0.0.1" || host == "::1" }

func hasEndpoint(list []*url.URL, endpoint *url.URL) bool {
	for _, have := range list {
		if have.String() == endpoint.String() {
			return true
		}
	}
	return false
}

// parseRewrite reads a rule that puts a path before every repository. RKE2's containerd is a fork that rewrites by
// any regular expression; upstream's has no rewriting, but its API root may have a path.
func parseRewrite(pattern, replacement string) (prefix string, err error) {
	switch strings.TrimSuffix(strings.TrimPrefix(pattern, "^"), "$") {
	case "(.*)", "(.+)":
	default:
		return "", errors.New(`has a pattern that this version cannot rewrite by; it takes "^(.*)$"`)
	}
	for _, group := range []string{"/$1", "/${1}"} {
		if prefix, ok := strings.CutSuffix(replacement, group); ok {
			if prefix = strings.Trim(prefix, "/"); prefix != "" && !strings.ContainsAny(prefix, "$?#% ") && path.Clean("/"+prefix) == "/"+prefix {
				return prefix, nil
			}
		}
	}
	return "", errors.New(`has a replacement that this version cannot make; it takes "some/path/$1"`)
}
