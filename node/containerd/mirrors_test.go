package containerd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/pelletier/go-toml/v2"
)

// hostsOf renders text and lets containerd itself read the folder for one registry, in the order in which it asks.
func hostsOf(t *testing.T, text, registry string, noDefault bool) []docker.RegistryHost {
	t.Helper()
	r, err := LoadRegistries("registries.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := ApplyHosts(dir, RenderHosts(r, noDefault), writeFile); err != nil {
		t.Fatal(err)
	}
	hosts, err := config.ConfigureHosts(context.Background(), config.HostOptions{HostDir: config.HostDirFromRoot(dir)})(registry)
	if err != nil {
		t.Fatal(err)
	}
	return hosts
}

func writeFile(file string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o600)
}

// TestContainerdAsks is the whole point of registries.yaml: which addresses containerd asks for an image, in which
// order, and which of them it may push to.
func TestContainerdAsks(t *testing.T) {
	for _, c := range []struct {
		name, text, registry string
		noDefault            bool
		want                 []string
	}{
		{"nothing said", "", "reg.example", false, []string{"https://reg.example/v2"}},
		{"docker's own name", "", "docker.io", false, []string{"https://registry-1.docker.io/v2"}},
		{"a mirror, then the registry", "mirrors: {reg.example: {endpoint: ['https://m.example']}}", "reg.example", false,
			[]string{"https://m.example/v2", "https://reg.example/v2"}},
		{"a mirror alone", "mirrors: {reg.example: {endpoint: ['https://m.example']}}", "reg.example", true, []string{"https://m.example/v2"}},
		{"mirrors in order", "mirrors: {reg.example: {endpoint: ['https://b.example', 'https://a.example']}}", "reg.example", false,
			[]string{"https://b.example/v2", "https://a.example/v2", "https://reg.example/v2"}},
		{"mirrors alone in order", "mirrors: {reg.example: {endpoint: ['https://b.example', 'https://a.example']}}", "reg.example", true,
			[]string{"https://b.example/v2", "https://a.example/v2"}},
		{"the registry named as its own mirror", "mirrors: {reg.example: {endpoint: ['https://m.example', 'https://reg.example']}}", "reg.example", true,
			[]string{"https://m.example/v2", "https://reg.example/v2"}},
		{"a mirror without encryption", "mirrors: {reg.example: {endpoint: ['http://10.0.0.1:5000']}}", "reg.example", true, []string{"http://10.0.0.1:5000/v2"}},
		{"a mirror with a path of its own", "mirrors: {reg.example: {endpoint: ['https://m.example/harbor/v2']}}", "reg.example", true,
			[]string{"https://m.example/harbor/v2"}},
		{"docker's mirror", "mirrors: {docker.io: {endpoint: ['https://m.example']}}", "docker.io", false,
			[]string{"https://m.example/v2", "https://registry-1.docker.io/v2"}},
		{"wildcard", "mirrors: {'*': {endpoint: ['https://m.example']}}", "any.example", false,
			[]string{"https://m.example/v2", "https://any.example/v2"}},
		{"wildcard with nothing behind it", "mirrors: {'*': {endpoint: ['https://m.example']}}", "any.example", true,
			[]string{"https://m.example/v2"}},
		{"a named one beats the wildcard", "mirrors: {'*': {endpoint: ['https://m.example']}, reg.example: {endpoint: ['https://own.example']}}", "reg.example", true,
			[]string{"https://own.example/v2"}},
		{"another's mirror", "mirrors: {other.example: {endpoint: ['https://m.example']}}", "reg.example", false, []string{"https://reg.example/v2"}},
		{"a registry with a port", "mirrors: {'reg.example:5000': {endpoint: ['https://m.example']}}", "reg.example:5000", false,
			[]string{"https://m.example/v2", "https://reg.example:5000/v2"}},
		{"a mirror without endpoints", "mirrors: {reg.example: {}}", "reg.example", true, []string{"https://reg.example/v2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, h := range hostsOf(t, c.text, c.registry, c.noDefault) {
				got = append(got, h.Scheme+"://"+h.Host+h.Path)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q\nwant %q", got, c.want)
			}
		})
	}
}

// TestMirrorsAreNotPushedTo: only the registry itself takes images.
func TestMirrorsAreNotPushedTo(t *testing.T) {
	hosts := hostsOf(t, "mirrors: {reg.example: {endpoint: ['https://m.example']}}", "reg.example", false)
	if hosts[0].Capabilities.Has(docker.HostCapabilityPush) || !hosts[0].Capabilities.Has(docker.HostCapabilityPull|docker.HostCapabilityResolve) {
		t.Errorf("mirror: got %v", hosts[0].Capabilities)
	}
	if !hosts[1].Capabilities.Has(docker.HostCapabilityPush) {
		t.Errorf("registry: got %v", hosts[1].Capabilities)
	}
}

// TestTLSSettings goes by the host that is talked to, not by the registry whose images are asked for.
func TestTLSSettings(t *testing.T) {
	const tls = "{ca_file: /etc/ca.pem, cert_file: /etc/c.pem, key_file: /etc/k.pem, insecure_skip_verify: true}"
	type settings struct {
		CA         []string   `toml:"ca"`
		Client     [][]string `toml:"client"`
		SkipVerify bool       `toml:"skip_verify"`
	}
	for _, c := range []struct {
		name, text       string
		folder, mirror   string // mirror "": the registry itself
		ca, client, skip bool
	}{
		{"of the registry", "configs: {reg.example: {tls: " + tls + "}}", "reg.example", "", true, true, true},
		{"of a mirror", "mirrors: {reg.example: {endpoint: ['https://m.example']}}\nconfigs: {m.example: {tls: " + tls + "}}", "reg.example", "https://m.example/v2", true, true, true},
		{"of a mirror, not of the registry", "mirrors: {reg.example: {endpoint: ['https://m.example']}}\nconfigs: {m.example: {tls: " + tls + "}}", "reg.example", "", false, false, false},
		{"of a mirror's port", "mirrors: {reg.example: {endpoint: ['https://m.example:5000']}}\nconfigs: {m.example: {tls: " + tls + "}}", "reg.example", "https://m.example:5000/v2", false, false, false},
		{"of docker.io", "configs: {docker.io: {tls: " + tls + "}}", "docker.io", "", true, true, true},
		{"of every host", "mirrors: {reg.example: {endpoint: ['https://m.example']}}\nconfigs: {'*': {tls: {ca_file: /etc/ca.pem}}}", "reg.example", "https://m.example/v2", true, false, false},
		{"a named host beats every host", "configs: {'*': {tls: {insecure_skip_verify: true}}, reg.example: {tls: {ca_file: /etc/ca.pem}}}", "reg.example", "", true, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := LoadRegistries("r.yaml", []byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			var file struct {
				settings
				Host map[string]settings `toml:"host"`
			}
			if err := toml.Unmarshal(RenderHosts(r, false)[c.folder], &file); err != nil {
				t.Fatal(err)
			}
			got := file.settings
			if c.mirror != "" {
				got = file.Host[c.mirror]
			}
			if (len(got.CA) == 1) != c.ca || (len(got.Client) == 1) != c.client || got.SkipVerify != c.skip {
				t.Errorf("got %+v", got)
			}
			if c.client && !slices.Equal(got.Client[0], []string{"/etc/c.pem", "/etc/k.pem"}) {
				t.Errorf("client: got %q", got.Client)
			}
		})
	}
}

// TestRewrites: a path before every repository becomes a part of the mirror's root, never of the registry's own.
func TestRewrites(t *testing.T) {
	for _, c := range []struct{ name, rule, want, problem string }{
		{"group one", `{"^(.*)$": "cache/$1"}`, "https://m.example/v2/cache", ""},
		{"group one in braces", `{"(.*)": "cache/${1}"}`, "https://m.example/v2/cache", ""},
		{"something at least", `{"^(.+)$": "a/b/c/$1"}`, "https://m.example/v2/a/b/c", ""},
		{"leading slash", `{"(.*)": "/cache/$1"}`, "https://m.example/v2/cache", ""},
		{"no prefix", `{"(.*)": "$1"}`, "", "replacement"},
		{"upwards", `{"(.*)": "../x/$1"}`, "", "replacement"},
		{"a name only", `{"^library/nginx$": "nginx"}`, "", "pattern"},
		{"another group", `{"(.*)": "x/$2"}`, "", "replacement"},
		{"a blank", `{"(.*)": "a b/$1"}`, "", "replacement"},
		{"a query", `{"(.*)": "a?b/$1"}`, "", "replacement"},
		{"no text", `{"(.*)": [x]}`, "", "is not a text"},
		{"no mapping", `[x]`, "", "is not a mapping"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := LoadRegistries("r.yaml", []byte("mirrors:\n  reg.example:\n    endpoint: ['https://m.example']\n    rewrite: "+c.rule+"\n"))
			if c.problem != "" {
				if err == nil || !strings.Contains(err.Error(), "r.yaml: line 4: mirrors.reg.example.rewrite") || !strings.Contains(err.Error(), c.problem) {
					t.Errorf("got %v, want %q", err, c.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var file struct {
				Server string
				Host   map[string]struct {
					Override bool `toml:"override_path"`
				}
			}
			if err := toml.Unmarshal(RenderHosts(r, false)["reg.example"], &file); err != nil {
				t.Fatal(err)
			}
			if mirror, ok := file.Host[c.want]; !ok || !mirror.Override || file.Server != "https://reg.example/v2" {
				t.Errorf("got %+v, want %s with a path of its own", file, c.want)
			}
		})
	}
}

// TestEveryMistakeIsTold at once, in the order of the file.
func TestEveryMistakeIsTold(t *testing.T) {
	_, err := LoadRegistries("r.yaml", []byte("mirrors:\n  a/b: {}\n  c.io:\n    endpoint: ['ftp://x', 'https://']\nconfigs:\n  d.io:\n    tls: {ca_file: x, key_file: /k}\n    user: x\n"))
	if err == nil {
		t.Fatal("no error")
	}
	var lines []string
	for line := range strings.Lines(err.Error()) {
		place, _, _ := strings.Cut(strings.TrimPrefix(line, "r.yaml: line "), ":")
		lines = append(lines, place)
	}
	if want := []string{"2", "4", "4", "7", "7", "8"}; !slices.Equal(lines, want) {
		t.Errorf("got lines %q, want %q:\n%v", lines, want, err)
	}
}

func TestNamesOfRegistries(t *testing.T) {
	for name, ok := range map[string]bool{
		"reg.example": true, "reg.example:5000": true, "localhost:5000": true, "10.0.0.1:5000": true, `"[fd00::1]:5000"`: true, `"*"`: true,
		"https://reg.example": false, "reg.example/path": false, "_default": false, `"*.example"`: false, ".": false, "..": false, `""`: false, "a b": false, "reg.example:http": false,
	} {
		_, err := LoadRegistries("r.yaml", []byte("mirrors:\n  "+name+": {}\n"))
		if (err == nil) != ok {
			t.Errorf("%s: got %v, want it taken: %v", name, err, ok)
		}
	}
}

func TestEndpointsThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"": "is empty", "https://": "not a URL", "https://:5000": "not a URL", "ftp://x": "neither https nor http", "https://u:p@x": "credentials",
		"https://x?y": "host, port and path", "https://x#y": "host, port and path", "https://x y": "not a URL", "unix:///run/x": "not a URL",
	} {
		if u, err := parseEndpoint(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v; want %q", text, u, err, want)
		}
	}
}

// TestCredentials stand in the daemon's configuration, quoted, and only for hosts that have some.
func TestCredentials(t *testing.T) {
	r, err := LoadRegistries("r.yaml", []byte("configs:\n  a.io:\n    auth: {username: u, password: 'p\"\\n]'}\n  b.io:\n    auth: {identity_token: tok}\n  c.io:\n    auth: {auth: dTpw}\n  d.io:\n    tls: {insecure_skip_verify: true}\n"))
	if err != nil {
		t.Fatal(err)
	}
	p := params()
	p.Registries = r
	out, err := Render(p)
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Plugins map[string]struct {
			Registry struct {
				Configs map[string]struct {
					Auth struct{ Username, Password, Auth, IdentityToken string }
				}
			}
		}
	}
	if err := toml.Unmarshal(out, &c); err != nil {
		t.Fatal(err)
	}
	hosts := c.Plugins["io.containerd.cri.v1.images"].Registry.Configs
	if len(hosts) != 3 || hosts["a.io"].Auth.Username != "u" || hosts["a.io"].Auth.Password != `p"\n]` || hosts["b.io"].Auth.IdentityToken != "tok" || hosts["c.io"].Auth.Auth != "dTpw" {
		t.Errorf("got %+v", hosts)
	}
	for folder, text := range RenderHosts(r, false) {
		if strings.Contains(string(text), "tok") || folder != "d.io" {
			t.Errorf("%s: got %s", folder, text)
		}
	}
}

// TestRenderNamesWhatIsMissing: an empty path would make containerd use its own default in silence.
func TestRenderNamesWhatIsMissing(t *testing.T) {
	for want, change := range map[string]func(*Params){
		"data dir": func(p *Params) { p.DataDir = "" }, "sandbox image": func(p *Params) { p.SandboxImage = "" },
		"network plugins": func(p *Params) { p.NetworkBin = "" }, "runc": func(p *Params) { p.Runc = "" }, "platform": func(p *Params) { p.Platform = "" },
	} {
		p := params()
		change(&p)
		if _, err := Render(p); err == nil || !strings.Contains(err.Error(), "no "+want+" is given") {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

func TestPaths(t *testing.T) {
	if got, want := ConfigPath("/d"), "/d/agent/etc/containerd/config.toml"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := RegistryDir("/d"), "/d/agent/etc/containerd/certs.d"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestApplyHostsTellsWhatFailed, and leaves a folder in which somebody put more than we did.
func TestApplyHostsTellsWhatFailed(t *testing.T) {
	dir := t.TempDir()
	full := errors.New("no space left")
	err := ApplyHosts(dir, map[string][]byte{"reg.example": []byte(managedHeader)}, func(string, []byte) error { return full })
	if !errors.Is(err, full) || !strings.Contains(err.Error(), "reg.example") {
		t.Errorf("cannot write: got %v", err)
	}
	for name, content := range map[string]string{"hosts.toml": managedHeader + "\n", "ca.crt": "x"} {
		if err := writeFile(filepath.Join(dir, "old.example", name), []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeFile(filepath.Join(dir, "README"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "empty.example"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := ApplyHosts(dir, nil, writeFile); err != nil {
		t.Errorf("a file among the folders: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "old.example", "ca.crt")); err != nil {
		t.Errorf("a file of somebody else: %v", err)
	}
}
