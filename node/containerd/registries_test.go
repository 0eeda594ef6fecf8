package containerd

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

const full = `
mirrors:
  docker.io:
    endpoint:
      - https://mirror.example/v2
      - mirror.example:5000/cache
      - http://10.0.0.1:5000
      - http://10.0.0.1:5000/
    rewrite:
      "^(.*)$": "proxy/hub/$1"
  "*":
    endpoint: [localhost:5001]
  reg.example:
    endpoint: ["https://near.example", "https://reg.example"]
configs:
  mirror.example:5000:
    auth: {username: u, password: hunter2}
    tls: {ca_file: /etc/ca.pem, cert_file: /etc/c.pem, key_file: /etc/k.pem}
  "*":
    tls: {insecure_skip_verify: true}
  only.example:
    tls: {ca_file: /etc/only.pem}
`

func TestRenderHosts(t *testing.T) {
	r, err := LoadRegistries("registries.yaml", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	for name, noDefault := range map[string]bool{"with-default": false, "no-default": true} {
		t.Run(name, func(t *testing.T) {
			hosts := RenderHosts(r, noDefault)
			var all strings.Builder
			for _, dir := range slices.Sorted(maps.Keys(hosts)) {
				fmt.Fprintf(&all, "== %s\n%s", dir, hosts[dir])
				var any map[string]any
				if err := toml.Unmarshal(hosts[dir], &any); err != nil {
					t.Errorf("%s: %v", dir, err)
				}
			}
			golden(t, "hosts-"+name+".golden", []byte(all.String()))
		})
	}
	if len(RenderHosts(Registries{}, true)) != 0 {
		t.Error("something rendered from nothing")
	}
}

func TestLoadRegistriesRefuses(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"not YAML":           {"mirrors: [", "line 1"},
		"not a mapping":      {"- a", "r.yaml: line 1: is not a mapping"},
		"unknown section":    {"mirror: {}", "line 1: mirror: is unknown here; known are configs, mirrors"},
		"unknown key":        {"mirrors:\n  docker.io:\n    endpoints: []", "line 3: mirrors.docker.io.endpoints: is unknown"},
		"twice":              {"mirrors:\n  a.io: {}\n  a.io: {}", "line 3: mirrors.a.io: is here for the second time"},
		"endpoint no list":   {"mirrors:\n  a.io:\n    endpoint: https://b", "line 3: mirrors.a.io.endpoint: is not a list"},
		"endpoint scheme":    {"mirrors:\n  a.io:\n    endpoint:\n    - ftp://b", "line 4: mirrors.a.io.endpoint: has a scheme"},
		"endpoint user":      {"mirrors:\n  a.io:\n    endpoint:\n    - https://u:secret@b", "credentials belong under configs"},
		"registry with path": {"mirrors:\n  a.io/x: {}", "mirrors.a.io/x: is not a registry's name"},
		"registry upwards":   {"mirrors:\n  ..: {}", "is not a registry's name"},
		"rewrite pattern":    {"mirrors:\n  a.io:\n    rewrite:\n      ^library/(.*): x/$1", "line 4: mirrors.a.io.rewrite.^library/(.*): has a pattern"},
		"rewrite result":     {"mirrors:\n  a.io:\n    rewrite:\n      (.*): $1-x", "has a replacement"},
		"two rewrites":       {"mirrors:\n  a.io:\n    rewrite:\n      (.*): x/$1\n      ^(.*): y/$1", "second rule"},
		"half a key pair":    {"configs:\n  a.io:\n    tls: {cert_file: /c}", "line 3: configs.a.io.tls: has one of"},
		"relative path":      {"configs:\n  a.io:\n    tls: {ca_file: ca.pem}", "ca_file: is not an absolute path"},
		"no boolean":         {"configs:\n  a.io:\n    tls: {insecure_skip_verify: perhaps}", "neither true nor false"},
		"wildcard password":  {"configs:\n  '*':\n    auth: {username: u}", "named hosts only"},
		"password no text":   {"configs:\n  a.io:\n    auth:\n      password: [a]", "line 4: configs.a.io.auth.password: is not a text"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := LoadRegistries("r.yaml", []byte(c.content))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "r.yaml") {
				t.Errorf("got error %v\nwant one with %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells a password: %v", err)
			}
		})
	}
}

func TestLoadRegistriesAcceptsEmpty(t *testing.T) {
	for _, content := range []string{"", "# nothing\n", "mirrors:\n", "mirrors: {}\nconfigs:\n", "mirrors:\n  docker.io:\n"} {
		if _, err := LoadRegistries("r.yaml", []byte(content)); err != nil {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func TestCredentialsAreNotPrinted(t *testing.T) {
	r, err := LoadRegistries("r.yaml", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(r.Configs[0].Auth), fmt.Sprintf("%+v %#v", *r.Configs[0].Auth, *r.Configs[0].Auth)} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("got %s", text)
		}
	}
}

func TestParseEndpoint(t *testing.T) {
	for text, want := range map[string]string{
		"mirror":                   "https://mirror/v2",
		"https://mirror/":          "https://mirror/v2",
		"https://mirror/v2":        "https://mirror/v2",
		"https://mirror/harbor/v2": "https://mirror/harbor/v2",
		"localhost:5000":           "http://localhost:5000/v2",
		"127.0.0.1:5000":           "http://127.0.0.1:5000/v2",
		"localhost":                "https://localhost/v2",
		"localhost:443":            "https://localhost:443/v2",
		"https://localhost:5000":   "https://localhost:5000/v2",
		"[fd00::1]:5000":           "https://[fd00::1]:5000/v2",
	} {
		got, err := parseEndpoint(text)
		if err != nil || got.String() != want {
			t.Errorf("%s: got %v, %v; want %s", text, got, err, want)
		}
	}
}

func FuzzLoadRegistries(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("mirrors: &a {b: *a}"))
	f.Fuzz(func(t *testing.T, content []byte) {
		r, err := LoadRegistries("r.yaml", content)
		if err != nil {
			return
		}
		for dir, text := range RenderHosts(r, false) {
			if dir == "" || filepath.Base(dir) != dir || dir == ".." || dir == string(os.PathSeparator) {
				t.Errorf("folder %q", dir)
			}
			var any map[string]any
			if err := toml.Unmarshal(text, &any); err != nil {
				t.Errorf("%v in\n%s", err, text)
			}
		}
	})
}
