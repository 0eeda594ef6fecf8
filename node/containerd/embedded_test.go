package containerd

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/pelletier/go-toml/v2"

	"keelson/node/pki"
)

// embedded is what a node whose data is in dir makes of text.
func embedded(t *testing.T, dir, text string) Registries {
	t.Helper()
	r, err := LoadRegistries("registries.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	shared := r.Shared()
	return r.Embedded(dir, func(registry string) bool {
		return registry != "localhost:5000" && (slices.Contains(shared, registry) || slices.Contains(shared, "*"))
	})
}

// The node's own registry is asked first, for what it shares and nothing else, and whatever stood there comes after it.
func TestContainerdAsksTheEmbeddedRegistry(t *testing.T) {
	const own = "https://" + EmbeddedAddress + "/v2"
	dir := t.TempDir() // with certificates: containerd reads them with the rest
	p := pki.Params{ServerDir: filepath.Join(dir, "server"), AgentDir: filepath.Join(dir, "agent"), NodeName: "n", ClusterDomain: "cluster.local"}
	if _, err := pki.EnsureCertificates(p); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text, registry string
		noDefault            bool
		want                 []string
	}{
		{"nothing is shared", "", "reg.example", false, []string{"https://reg.example/v2"}},
		{"a mirror without endpoints", "mirrors: {reg.example: {}}", "reg.example", false, []string{own, "https://reg.example/v2"}},
		{"without the registry itself", "mirrors: {reg.example: {}}", "reg.example", true, []string{own}},
		{"before a mirror", "mirrors: {reg.example: {endpoint: ['https://m.example']}}", "reg.example", false, []string{own, "https://m.example/v2", "https://reg.example/v2"}},
		{"before a mirror alone", "mirrors: {reg.example: {endpoint: ['https://m.example']}}", "reg.example", true, []string{own, "https://m.example/v2"}},
		{"docker's", "mirrors: {docker.io: {}}", "docker.io", false, []string{own, "https://registry-1.docker.io/v2"}},
		{"every registry", "mirrors: {'*': {}}", "reg.example", false, []string{own, "https://reg.example/v2"}},
		{"every registry, one with settings of its own", "mirrors: {'*': {}}\nconfigs: {reg.example: {tls: {insecure_skip_verify: true}}}", "reg.example", true, []string{own, "https://reg.example/v2"}},
		{"this machine's own registry", "mirrors: {'localhost:5000': {endpoint: ['http://localhost:5000']}}", "localhost:5000", false, []string{"http://localhost:5000/v2"}},
		{"a rewrite is of the mirror", "mirrors: {reg.example: {endpoint: ['https://m.example'], rewrite: {'(.*)': 'cache/$1'}}}", "reg.example", false, []string{own, "https://m.example/v2/cache", "https://reg.example/v2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			certs := t.TempDir()
			if err := ApplyHosts(certs, RenderHosts(embedded(t, dir, c.text), c.noDefault), writeFile); err != nil {
				t.Fatal(err)
			}
			hosts, err := config.ConfigureHosts(context.Background(), config.HostOptions{HostDir: config.HostDirFromRoot(certs)})(c.registry)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, h := range hosts {
				got = append(got, h.Scheme+"://"+h.Host+h.Path)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q\nwant %q", got, c.want)
			}
		})
	}
}

// It is asked with the node's certificate and believes the cluster's authority, whatever registries.yaml says about it.
func TestTLSOfTheEmbeddedRegistry(t *testing.T) {
	r := embedded(t, "/data", "mirrors: {reg.example: {endpoint: ['https://m.example']}}\nconfigs: {'*': {tls: {insecure_skip_verify: true}}, '"+EmbeddedAddress+"': {tls: {insecure_skip_verify: true}}}")
	type settings struct {
		CA         []string   `toml:"ca"`
		Client     [][]string `toml:"client"`
		SkipVerify bool       `toml:"skip_verify"`
	}
	var file struct {
		settings
		Host map[string]settings `toml:"host"`
	}
	if err := toml.Unmarshal(RenderHosts(r, false)["reg.example"], &file); err != nil {
		t.Fatal(err)
	}
	own := file.Host["https://"+EmbeddedAddress+"/v2"]
	if !slices.Equal(own.CA, []string{"/data/agent/server-ca.crt"}) || own.SkipVerify || len(own.Client) != 1 ||
		!slices.Equal(own.Client[0], []string{"/data/agent/client-rke2-controller.crt", "/data/agent/client-rke2-controller.key"}) {
		t.Errorf("the embedded registry: got %+v", own)
	}
	if other := file.Host["https://m.example/v2"]; !other.SkipVerify || len(other.Client) != 0 {
		t.Errorf("the mirror behind it: got %+v", other)
	}
}
