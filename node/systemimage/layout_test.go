package systemimage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/opencontainers/go-digest"

	"keelson/node/systemimage/layouttest"
)

const (
	etcdName  = "registry.keelson.internal/etcd:v3.7.3"
	pauseName = "registry.keelson.internal/pause:3.10"
)

func writeLayout(t testing.TB) string {
	return layouttest.Write(t, t.TempDir(),
		map[string]layouttest.Layer{"base": {"etc/passwd": "root"}, "bundle": {"bin/bundle": "elf"}, "pause": {"bin/pause": "elf pause"}},
		layouttest.Image{Name: pauseName, Layers: []string{"pause"}},
		layouttest.Image{Name: etcdName, Layers: []string{"base", "bundle"}},
	)
}

func TestLoad(t *testing.T) {
	layout, err := Load(writeLayout(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(layout.Images) != 2 || layout.Images[0].Name != etcdName || layout.Images[1].Name != pauseName {
		t.Fatalf("got %+v, want etcd and pause, sorted", layout.Images)
	}
	etcd := layout.Images[0]
	if len(etcd.Layers) != 2 || filepath.Base(etcd.Layers[0].Dir) != "base" || filepath.Base(etcd.Layers[1].Dir) != "bundle" {
		t.Fatalf("got layers %+v, want base and bundle", etcd.Layers)
	}
	if got := etcd.Layers[0].ChainID; got != etcd.Layers[0].DiffID {
		t.Errorf("chain of the lowest layer: got %s, want its own digest %s", got, etcd.Layers[0].DiffID)
	}
	// OCI image specification, config.md: ChainID(L0|L1) = Digest(ChainID(L0) + " " + DiffID(L1)).
	want := digest.FromString(etcd.Layers[0].ChainID.String() + " " + etcd.Layers[1].DiffID.String())
	if got := etcd.ChainID(); got != want {
		t.Errorf("chain of two layers: got %s, want %s", got, want)
	}
	if got := etcd.Layers[1].Parent; got != etcd.Layers[0].ChainID {
		t.Errorf("parent: got %s, want %s", got, etcd.Layers[0].ChainID)
	}
}

func TestReference(t *testing.T) {
	layout := &Layout{Images: []Image{{Name: etcdName}, {Name: "registry.keelson.internal:5000/a/pause@sha256:abc"}}}
	cases := []struct{ short, want, wantErr string }{
		{"etcd", etcdName, ""},
		{"pause", "registry.keelson.internal:5000/a/pause@sha256:abc", ""},
		{"etc", "", `find system image "etc"`},
	}
	for _, c := range cases {
		got, err := layout.Reference(c.short)
		if got != c.want || (err == nil) != (c.wantErr == "") || (err != nil && !strings.Contains(err.Error(), c.wantErr)) {
			t.Errorf("%s: got %q, %v, want %q, %q", c.short, got, err, c.want, c.wantErr)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	replace := func(name, from, to string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			path := filepath.Join(dir, name)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			changed := strings.Replace(string(data), from, to, 1)
			if changed == string(data) {
				t.Fatalf("%s does not hold %q", name, from)
			}
			if err := os.WriteFile(path, []byte(changed), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	cases := []struct {
		name    string
		damage  func(*testing.T, string)
		wantErr string
	}{
		{"no index", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "index.json")) }, "index.json is missing"},
		{"no layers", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "layers.json")) }, "layers.json is missing"},
		{"broken index", func(t *testing.T, dir string) { os.WriteFile(filepath.Join(dir, "index.json"), []byte("{"), 0o644) }, "parse index.json"},
		{"unnamed image", replace("index.json", "io.containerd.image.name", "other"), "no annotation io.containerd.image.name"},
		{"same name twice", replace("index.json", pauseName, etcdName), "listed twice"},
		{"relative layer", replace("layers.json", `":"/`, `":"`), "is not absolute"},
		{"unknown layer", replace("layers.json", `"sha256:`, `"sha256:0`), "is not in layers.json"},
		{"missing blob", func(t *testing.T, dir string) { os.RemoveAll(filepath.Join(dir, "blobs")) }, "no such file"},
		{"digest without algorithm", replace("index.json", `"digest":"sha256:`, `"digest":"../../`), "digest"},
		{"changed blob", func(t *testing.T, dir string) {
			blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
			if err != nil || len(blobs) == 0 {
				t.Fatal(blobs, err)
			}
			for _, blob := range blobs {
				data, err := os.ReadFile(blob)
				if err != nil {
					t.Fatal(err)
				}
				data[0] ^= 1
				if err := os.WriteFile(blob, data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}, "has the digest"},
		{"longer blob", func(t *testing.T, dir string) {
			blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, blob := range blobs {
				if err := os.WriteFile(blob, make([]byte, 5000), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}, "its descriptor says"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := writeLayout(t)
			c.damage(t, dir)
			layout, err := Load(dir)
			if err == nil || !strings.Contains(err.Error(), c.wantErr) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v, %v, want an error with %q and the directory", layout, err, c.wantErr)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	dir := writeLayout(f)
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			f.Fatal(err)
		}
		return data
	}
	f.Add(read("index.json"), read("layers.json"), []byte(`{"schemaVersion":2,"config":{},"layers":[]}`))
	f.Fuzz(func(t *testing.T, index, layers, blob []byte) {
		layout, err := load(fstest.MapFS{
			"index.json":  {Data: index},
			"layers.json": {Data: layers},
			"blobs/sha256/" + digest.FromBytes(blob).Encoded(): {Data: blob},
		})
		if err != nil {
			return
		}
		for _, image := range layout.Images {
			if image.Name == "" || len(image.Layers) == 0 || !filepath.IsAbs(image.Layers[0].Dir) {
				t.Errorf("accepted an unusable image %+v", image)
			}
		}
	})
}
