package chartsource

import (
	"encoding/base64"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	crane "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"helm.sh/helm/v4/pkg/registry"

	"keelson/node/containerd"
)

// oci is a registry, which may want a login.
type oci struct {
	*httptest.Server
	host  string
	mu    sync.Mutex
	login string
	asked []string
	spoil func(path string, out []byte) []byte
}

func newOCI(t *testing.T, encrypted bool) *oci {
	t.Helper()
	o := &oci{}
	inner := crane.New(crane.Logger(log.New(io.Discard, "", 0)))
	o.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		o.mu.Lock()
		login, spoil := o.login, o.spoil
		o.asked = append(o.asked, req.Method+" "+req.URL.RequestURI())
		o.mu.Unlock()
		if user, password, _ := req.BasicAuth(); login != "" && user+":"+password != login {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		if spoil == nil {
			inner.ServeHTTP(w, req)
			return
		}
		recorded := httptest.NewRecorder()
		inner.ServeHTTP(recorded, req)
		for name, values := range recorded.Header() {
			w.Header()[name] = values
		}
		w.Header().Del("Content-Length")
		w.WriteHeader(recorded.Code)
		_, _ = w.Write(spoil(req.URL.Path, recorded.Body.Bytes()))
	}))
	if encrypted {
		o.StartTLS()
	} else {
		o.Start()
	}
	t.Cleanup(o.Close)
	o.host = strings.TrimPrefix(strings.TrimPrefix(o.URL, "https://"), "http://")
	return o
}

// push has Helm's own client put a chart into the registry.
func (o *oci) push(t *testing.T, content []byte, reference string) {
	t.Helper()
	options := []registry.ClientOption{
		registry.ClientOptHTTPClient(o.Client()), registry.ClientOptWriter(io.Discard), registry.ClientOptCredentialsFile(filepath.Join(t.TempDir(), "none.json")),
	}
	if strings.HasPrefix(o.URL, "http:") {
		options = append(options, registry.ClientOptPlainHTTP())
	}
	client, err := registry.NewClient(options...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Push(content, o.host+"/"+reference); err != nil {
		t.Fatal(err)
	}
}

func (o *oci) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
	o.asked = nil
}

func (o *oci) was() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.asked, "\n")
}

func TestRegistry(t *testing.T) {
	b := newBench(t)
	o := newOCI(t, false)
	one, two, three := archive(t, "web", "1.0.0"), archive(t, "web", "1.2.0+build.7"), archive(t, "web", "2.0.0-rc.1")
	o.push(t, one, "team/web:1.0.0")
	o.push(t, two, "team/web:1.2.0+build.7")
	o.push(t, three, "team/web:2.0.0-rc.1")
	image, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(o.host+"/team/image:1.0.0", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	at := "oci://" + o.host + "/team/"
	b.want(Request{Chart: at + "web", Version: "1.0.0"}, one)
	b.want(Request{Chart: at + "web", Version: "1.2.0+build.7"}, two)
	b.want(Request{Chart: at + "web"}, two)
	b.want(Request{Chart: at + "web", Version: "~1.0"}, one)
	b.want(Request{Chart: at + "web", Version: ">0.0.0-0"}, three)
	b.want(Request{Chart: "web", Repo: at, Version: "1.0.0"}, one)
	b.want(Request{Chart: at + "web:1.0.0", Version: "7"}, one)
	b.want(Request{Chart: at + "web", Version: "7.0.0"}, nil, "not found")
	b.want(Request{Chart: at + "web", Version: ">=7"}, nil, "spec.version", "1.2.0+build.7")
	b.want(Request{Chart: at + "none"}, nil, "404")
	b.want(Request{Chart: at + "image", Version: "1.0.0"}, nil, "it is no chart")
	b.want(Request{Chart: "oci://" + o.host, Version: "1.0.0"}, nil, "is not of the form")

	o.set(func() {
		o.spoil = func(path string, out []byte) []byte {
			if strings.Contains(path, "/blobs/") && len(out) > 0 {
				out[len(out)-1] ^= 1
			}
			return out
		}
	})
	b.want(Request{Chart: at + "web", Version: "1.0.0"}, nil, "digest")
}

// A registry's mirrors and credentials are those of registries.yaml, as for images.
func TestThroughRegistries(t *testing.T) {
	b := newBench(t)
	mirror := newOCI(t, true)
	one := archive(t, "web", "1.0.0")
	mirror.push(t, one, "proxy/team/web:1.0.0")
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, (&web{Server: mirror.Server}).ca(), 0o600); err != nil {
		t.Fatal(err)
	}
	endpoint, err := url.Parse(mirror.URL + "/v2")
	if err != nil {
		t.Fatal(err)
	}
	b.registries = containerd.Registries{
		Mirrors: []containerd.Mirror{{Registry: "charts.example", Endpoints: []*url.URL{endpoint}, Prefix: "proxy"}, {Registry: "docker.io", Endpoints: []*url.URL{endpoint}, Prefix: "proxy"}},
		Configs: []containerd.Host{{Name: mirror.host, CAFile: ca, Auth: &containerd.Auth{Username: "me", Password: "pw"}}},
	}
	err = containerd.ApplyHosts(b.cfg.Hosts, containerd.RenderHosts(b.registries, true), func(path string, content []byte) error {
		b.write(filepath.Dir(path), filepath.Base(path), content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	mirror.set(func() { mirror.login = "me:pw" })
	for _, r := range []Request{
		{Chart: "oci://charts.example/team/web", Version: "1.0.0"},
		{Chart: "oci://registry-1.docker.io/team/web", Version: "1.0.0"},
	} {
		b.want(r, one)
	}
	// Versions are listed at the mirror.
	b.want(Request{Chart: "oci://charts.example/team/web"}, one)
	if got := mirror.was(); !strings.Contains(got, "GET /v2/proxy/team/web/tags/list?ns=charts.example") {
		t.Errorf("the mirror was asked %s", got)
	}
	mirror.set(func() { mirror.login = "me:other" })
	b.want(Request{Chart: "oci://charts.example/team/web", Version: "1.0.0"}, nil, "401")
}

// A chart's own Secrets win over registries.yaml.
func TestRegistryLogin(t *testing.T) {
	b := newBench(t)
	o := newOCI(t, true)
	one := archive(t, "web", "1.0.0")
	o.push(t, one, "web:1.0.0")
	o.set(func() { o.login = "me:pw" })
	b.registries = containerd.Registries{Configs: []containerd.Host{{Name: o.host, Auth: &containerd.Auth{Username: "me", Password: "old"}}}}
	r := Request{Chart: "oci://" + o.host + "/web", Version: "1.0.0", CA: (&web{Server: o.Server}).ca()}
	b.want(r, nil, "401")
	r.Username, r.Password = "me", "pw"
	b.want(r, one)
	auth := base64.StdEncoding.EncodeToString([]byte("me:pw"))
	for _, config := range []string{`{"auths":{"` + o.host + `":{"auth":"` + auth + `"}}}`, `{"auths":{"https://` + o.host + `/v1/":{"username":"me","password":"pw"}}}`} {
		r = Request{Chart: r.Chart, Version: "", CA: r.CA, DockerConfig: []byte(config)}
		b.want(r, one)
	}
	r.DockerConfig = []byte(`{"auths":{"` + o.host + `":{"auth":"!"}}}`)
	b.want(r, nil, "user:password")
	r.DockerConfig = []byte("secret{")
	if _, err := b.Load(t.Context(), r); err == nil || strings.Contains(err.Error(), "secret{") {
		t.Errorf("got %v, want an error that does not quote the Secret", err)
	}
	if user, secret, err := pair(containerd.Auth{IdentityToken: "token"}); user != "" || secret != "token" || err != nil {
		t.Errorf("got %q, %q, %v", user, secret, err)
	}
}

func TestPages(t *testing.T) {
	for header, want := range map[string]string{
		`</v2/a/tags/list?last=b>; rel="next"`: "/v2/a/tags/list?last=b", `</x>;rel=next`: "/x",
		"": "", "</x>; rel=prev": "", "/x; rel=next": "", "<": "", ">; rel=next": "",
	} {
		if got := nextPage(header); got != want {
			t.Errorf("%q: got %q, want %q", header, got, want)
		}
	}
	pages := map[string]string{"": "1.0.0", "b": "2.0.0"}
	foreign := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		last := req.URL.Query().Get("last")
		if foreign {
			w.Header().Set("Link", `<http://elsewhere.example/v2/a/tags/list>; rel="next"`)
		} else if last == "" {
			w.Header().Set("Link", `</v2/a/tags/list?last=b>; rel="next"`)
		}
		_, _ = io.WriteString(w, `{"tags": ["`+pages[last]+`"]}`)
	}))
	defer server.Close()
	b := newBench(t)
	hosts, err := b.hosts(t.Context(), Request{})
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(server.URL, "http://")
	if tag, err := b.tag(t.Context(), hosts, host, "a", ""); tag != "2.0.0" || err != nil {
		t.Errorf("got %q, %v", tag, err)
	}
	foreign = true
	if _, err := b.tag(t.Context(), hosts, host, "a", ""); err == nil || !strings.Contains(err.Error(), "elsewhere") {
		t.Errorf("got %v", err)
	}
}

func TestObjects(t *testing.T) {
	for text, want := range map[string][3]string{
		"x.example/a":                            {"x.example", "a", ""},
		"x.example:5000/a/b-c":                   {"x.example:5000", "a/b-c", ""},
		"[::1]:5000/a:1.0.0":                     {"[::1]:5000", "a", ":1.0.0"},
		"x/a@sha256:" + strings.Repeat("ab", 32): {"x", "a", "@sha256:" + strings.Repeat("ab", 32)},
	} {
		host, repository, suffix, err := object(text)
		if got := [3]string{host, repository, suffix}; got != want || err != nil {
			t.Errorf("%s: got %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "x/", "/a", "x/A", "x/../a", "u:p@x/a", "x/a?b", "x/a#b", "x/a@sha256:12", "../x/a/..", "x/a b"} {
		if host, repository, suffix, err := object(text); err == nil {
			t.Errorf("%q: got %q, %q, %q", text, host, repository, suffix)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"layers":[{"mediaType":"` + mediaChart + `","digest":"sha256:` + strings.Repeat("ab", 32) + `","size":3}]}`))
	f.Add([]byte(`{"layers":[{"mediaType":"` + mediaChart + `","digest":"../x","size":-1}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		layer, err := layerOf(content)
		if err == nil && (layer.Digest.Validate() != nil || layer.MediaType != mediaChart || len(layer.URLs) > 0) {
			t.Errorf("got %+v", layer)
		}
	})
}
