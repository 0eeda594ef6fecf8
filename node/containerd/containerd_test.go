package containerd

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/cmd/containerd/server/config"
	_ "github.com/containerd/containerd/v2/plugins/cri"
	_ "github.com/containerd/containerd/v2/plugins/cri/images"
	_ "github.com/containerd/containerd/v2/plugins/cri/runtime"
	_ "github.com/containerd/containerd/v2/plugins/nri"
	_ "github.com/containerd/containerd/v2/plugins/server/grpc"
	_ "github.com/containerd/containerd/v2/plugins/server/ttrpc"
	_ "github.com/containerd/containerd/v2/plugins/services/diff"
	_ "github.com/containerd/containerd/v2/plugins/transfer"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/pelletier/go-toml/v2"

	"keelson/node/snapshot"
)

var update = flag.Bool("update", false, "write golden files anew")

func params() Params {
	return Params{
		DataDir:      "/var/lib/rancher/rke2",
		SandboxImage: "registry.keelson.internal/pause:3.10",
		NetworkBin:   "/usr/lib/keelson/cni/bin",
		Runc:         "/usr/bin/runc",
		Platform:     "linux/amd64",
	}
}

func withAuth() Params {
	p := params()
	p.Debug = true
	p.Registries.Configs = []Host{{Name: "reg.example:5000", Auth: &Auth{Username: "u", Password: "p\"w\\"}}}
	return p
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (run with -update after a wanted change); got:\n%s", file, got)
	}
}

// containerd's own loader must read what we write, and every key must be one that a plugin knows: an unknown key is
// only a warning there.
func TestRender(t *testing.T) {
	plugins := map[string]plugin.Registration{}
	for _, r := range registry.Graph(func(*plugin.Registration) bool { return false }) {
		plugins[r.URI()] = r
	}
	for name, p := range map[string]Params{"default": params(), "auth": withAuth()} {
		t.Run(name, func(t *testing.T) {
			got, err := Render(p)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "config-"+name+".toml", got)

			file := filepath.Join(t.TempDir(), "config.toml")
			if err := os.WriteFile(file, got, 0o600); err != nil {
				t.Fatal(err)
			}
			var c config.Config
			if err := config.LoadConfig(context.Background(), file, &c); err != nil {
				t.Fatal(err)
			}
			if c.Version != 4 || c.Root != "/var/lib/rancher/rke2/agent/containerd" || c.State != State {
				t.Errorf("got version %d, root %s, state %s", c.Version, c.Root, c.State)
			}
			for id, section := range c.Plugins {
				r, ok := plugins[id]
				if !ok {
					t.Errorf("no plugin %s", id)
					continue
				}
				text, err := toml.Marshal(section)
				if err != nil {
					t.Fatal(err)
				}
				if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(r.Config); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			}
			grpc, _ := json.Marshal(c.Plugins["io.containerd.server.v1.grpc"])
			if want := `{"address":"` + Socket + `"}`; string(grpc) != want {
				t.Errorf("socket: got %s, want %s", grpc, want)
			}
		})
	}
}

// What the configuration requires must be what the daemon of the bundle has under these names.
func TestRequiredPluginsAreOurs(t *testing.T) {
	if Snapshotter != snapshot.Name || ImagesPlugin != snapshot.ImagesPlugin {
		t.Errorf("got %s and %s, the plugins are %s and %s", Snapshotter, ImagesPlugin, snapshot.Name, snapshot.ImagesPlugin)
	}
	got, err := Render(params())
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Required []string `toml:"required_plugins"`
		Disabled []string `toml:"disabled_plugins"`
	}
	if err := toml.Unmarshal(got, &c); err != nil {
		t.Fatal(err)
	}
	want := []string{"io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.keelson", "io.containerd.service.v1.keelson-system-images"}
	if !slices.Equal(c.Required, want) {
		t.Errorf("got %q, want %q", c.Required, want)
	}
	for _, id := range c.Disabled {
		if slices.Contains(c.Required, id) {
			t.Errorf("%s is required and disabled", id)
		}
	}
}

func TestRenderRefuses(t *testing.T) {
	p := params()
	p.SandboxImage = ""
	if _, err := Render(p); err == nil || !strings.Contains(err.Error(), "sandbox image") {
		t.Errorf("got error %v", err)
	}
}

func TestRenderNetwork(t *testing.T) {
	golden(t, "10-flannel.conflist", RenderNetwork())
	var list struct {
		Plugins []struct{ Type string }
	}
	if err := json.Unmarshal(RenderNetwork(), &list); err != nil || len(list.Plugins) != 2 {
		t.Errorf("got %+v, %v", list, err)
	}
}

func TestApplyHosts(t *testing.T) {
	dir := t.TempDir()
	put := func(file string, content []byte) error {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		return os.WriteFile(file, content, 0o600)
	}
	for name, content := range map[string]string{"gone": managedHeader + "\n", "own": "server = \"x\"\n", "taken": "server = \"y\"\n"} {
		if err := put(filepath.Join(dir, name, "hosts.toml"), []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"own/hosts.toml": "server = \"x\"\n", "taken/hosts.toml": "server = \"y\"\n", "new/hosts.toml": managedHeader + "\nnew\n"}
	for range 2 {
		err := ApplyHosts(dir, map[string][]byte{"new": []byte(managedHeader + "\nnew\n"), "taken": []byte(managedHeader)}, put)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		files, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
		for _, f := range files {
			content, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := filepath.Rel(dir, f)
			got[name] = string(content)
		}
		if !maps.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "gone")); !os.IsNotExist(err) {
		t.Error("an emptied folder is still there")
	}
	if err := ApplyHosts(filepath.Join(dir, "none"), nil, put); err != nil {
		t.Errorf("a folder that is not there: %v", err)
	}
}
