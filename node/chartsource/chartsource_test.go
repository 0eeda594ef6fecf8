package chartsource

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/node/containerd"
)

// archive packs a small chart, as helm package does.
func archive(t testing.TB, name, version string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	content := "apiVersion: v2\nname: " + name + "\nversion: " + version + "\n"
	err := w.WriteHeader(&tar.Header{Name: name + "/Chart.yaml", Mode: 0o644, Size: int64(len(content))})
	if err == nil {
		_, err = io.WriteString(w, content)
	}
	if err := errors.Join(err, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// bench is a source over folders of its own.
type bench struct {
	*Source
	t          *testing.T
	cfg        Config
	registries containerd.Registries
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, cfg: Config{Dir: t.TempDir(), Static: t.TempDir(), Hosts: t.TempDir()}}
	b.cfg.Registries = func() (containerd.Registries, error) { return b.registries, nil }
	var err error
	if b.Source, err = New(b.cfg); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) write(dir, name string, content []byte) {
	b.t.Helper()
	file := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, content, 0o644)); err != nil {
		b.t.Fatal(err)
	}
}

// want wants an archive, or an error with all of some texts.
func (b *bench) want(r Request, want []byte, problem ...string) {
	b.t.Helper()
	got, err := b.Load(b.t.Context(), r)
	if (err != nil) != (len(problem) > 0) {
		b.t.Fatalf("%+v: got %v, want an error: %t", r, err, len(problem) > 0)
	}
	for _, text := range problem {
		if !strings.Contains(err.Error(), text) {
			b.t.Errorf("got %v, want it to say %q", err, text)
		}
	}
	if err == nil && !bytes.Equal(got, want) {
		b.t.Errorf("%s: got %d bytes, want %d others", r, len(got), len(want))
	}
}

func TestLocal(t *testing.T) {
	b := newBench(t)
	shipped, own, secret := archive(t, "shipped", "1.0.0"), archive(t, "own", "2.0.0"), archive(t, "secret", "1.0.0")
	b.write(b.cfg.Dir, "shipped-1.0.0.tgz", shipped)
	b.write(b.cfg.Dir, "more/deep.tgz", own)
	b.write(b.cfg.Dir, "values.yaml", []byte("a: 1\n"))
	b.write(b.cfg.Static, "charts/own-2.0.0.tgz", own)
	outside := t.TempDir()
	b.write(outside, "secret.tgz", secret)
	if err := errors.Join(os.Symlink(filepath.Join(outside, "secret.tgz"), filepath.Join(b.cfg.Dir, "link.tgz")), os.Mkdir(filepath.Join(b.cfg.Dir, "dir.tgz"), 0o755)); err != nil {
		t.Fatal(err)
	}
	encoded := base64.StdEncoding.EncodeToString(own)
	const static = "https://%{KUBERNETES_API}%/static/"
	for _, c := range []struct {
		name    string
		request Request
		want    []byte
		problem string
	}{
		{"content", Request{Content: encoded}, own, ""},
		{"content wins", Request{Content: encoded, Chart: "https://127.0.0.1:1/x.tgz"}, own, ""},
		{"content in lines", Request{Content: encoded[:20] + "\n" + encoded[20:] + "\n"}, own, ""},
		{"content that is none", Request{Content: "!"}, nil, "spec.chartContent: is not in base64"},
		{"content too long", Request{Content: strings.Repeat("A", base64.StdEncoding.EncodedLen(maxArchive)+4)}, nil, "longer than a chart"},
		{"of the image", Request{Chart: b.cfg.Dir + "/shipped-1.0.0.tgz", Version: "9"}, shipped, ""},
		{"deeper", Request{Chart: b.cfg.Dir + "/more/deep.tgz"}, own, ""},
		{"not there", Request{Chart: b.cfg.Dir + "/none.tgz"}, nil, "none.tgz"},
		{"another file", Request{Chart: b.cfg.Dir + "/values.yaml"}, nil, "read from nowhere else"},
		{"another folder", Request{Chart: outside + "/secret.tgz"}, nil, "read from nowhere else"},
		{"out of the folder", Request{Chart: b.cfg.Dir + "/../" + filepath.Base(outside) + "/secret.tgz"}, nil, "read from nowhere else"},
		{"by a link out of it", Request{Chart: b.cfg.Dir + "/link.tgz"}, nil, "link.tgz"},
		{"a folder", Request{Chart: b.cfg.Dir + "/dir.tgz"}, nil, "not a regular file"},
		{"RKE2's, of the owner", Request{Chart: static + "charts/own-2.0.0.tgz"}, own, ""},
		{"RKE2's, of the image", Request{Chart: static + "charts/shipped-1.0.0.tgz"}, shipped, ""},
		{"RKE2's, short", Request{Chart: "%{KUBERNETES_API}%/static/charts/shipped-1.0.0.tgz"}, shipped, ""},
		{"RKE2's, nowhere", Request{Chart: static + "charts/none.tgz"}, nil, "put it there on every server"},
		{"RKE2's, elsewhere", Request{Chart: static + "../etc/secret.tgz"}, nil, "is not of the form"},
		{"nothing", Request{}, nil, "spec.chart: is empty"},
		{"a name alone", Request{Chart: "web"}, nil, "spec.repo: is empty"},
		{"a scheme", Request{Chart: "s3://bucket/web"}, nil, `the scheme "s3"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.problem != "" {
				b.want(c.request, nil, c.problem)
				return
			}
			b.want(c.request, c.want)
		})
	}
}

// What a chart is known by changes with its bytes where they are here, and with its name where they are not.
func TestIdentify(t *testing.T) {
	b := newBench(t)
	identify := func(r Request) string {
		t.Helper()
		id, err := b.Identify(r)
		if err != nil || id == "" {
			t.Fatalf("%+v: got %q, %v", r, id, err)
		}
		return id
	}
	file := Request{Chart: b.cfg.Dir + "/a.tgz"}
	b.write(b.cfg.Dir, "a.tgz", []byte("one"))
	first := identify(file)
	if content := identify(Request{Content: base64.StdEncoding.EncodeToString([]byte("one"))}); content != first {
		t.Errorf("the same bytes: got %q and %q", first, content)
	}
	b.write(b.cfg.Dir, "a.tgz", []byte("two"))
	if identify(file) == first {
		t.Error("a file that changed is known by the same text")
	}
	seen := map[string]bool{}
	for _, r := range []Request{
		{Chart: "web", Repo: "https://x.example"}, {Chart: "web", Repo: "https://y.example"}, {Chart: "web", Repo: "https://x.example", Version: "1"},
		{Chart: "oci://x.example/web"}, {Chart: "https://x.example/web.tgz"},
	} {
		id := identify(r)
		if seen[id] || id != identify(r) {
			t.Errorf("%+v: got %q", r, id)
		}
		seen[id] = true
	}
	if _, err := b.Identify(Request{}); err == nil {
		t.Error("nothing was identified")
	}
}

func TestDescriptions(t *testing.T) {
	for want, r := range map[string]Request{
		"spec.chartContent": {Content: "AA=="},
		"the latest version of web from https://u:xxxxx@x.example": {Chart: "web", Repo: "https://u:secret@x.example"},
		"version 1 of docker.io/a/web":                             {Chart: "oci://registry-1.docker.io/a/web", Version: "1"},
		"the latest version of x.example/a/web":                    {Chart: "web", Repo: "oci://x.example/a/"},
		"https://x.example/web.tgz":                                {Chart: "https://x.example/web.tgz"},
		"/usr/lib/keelson/charts/a.tgz":                            {Chart: "/usr/lib/keelson/charts/a.tgz"},
		"nowhere":                                                  {},
	} {
		if got := r.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestNewWantsAll(t *testing.T) {
	whole := newBench(t).cfg
	for name, drop := range map[string]func(*Config){
		"folder": func(c *Config) { c.Dir = "" }, "static": func(c *Config) { c.Static = "" },
		"hosts": func(c *Config) { c.Hosts = "" }, "registries": func(c *Config) { c.Registries = nil },
	} {
		c := whole
		drop(&c)
		if _, err := New(c); err == nil {
			t.Errorf("without %s: no error", name)
		}
	}
}

// Time is bounded, and the message says that it was time.
func TestTooLong(t *testing.T) {
	b := newBench(t)
	b.within = 100 * time.Millisecond
	hang, done := context.WithCancel(t.Context())
	server := serve(t, false, map[string]answer{"/web.tgz": {hang: hang}})
	b.want(Request{Chart: server.URL + "/web.tgz"}, nil, "it took longer than 100ms")
	done()
}
