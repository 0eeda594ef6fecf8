package mirror

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// stores are containerd's own, in the test's process.
type stores struct {
	content content.Store
	images  images.Store
}

func newStores(t testing.TB) stores {
	t.Helper()
	dir := t.TempDir()
	blobs, err := local.NewStore(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	file, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, &bolt.Options{NoSync: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	db := metadata.NewDB(file, blobs, nil)
	if err := db.Init(context.Background()); err != nil {
		t.Fatal(err)
	}
	return stores{db.ContentStore(), metadata.NewImageStore(db)}
}

// put stores a blob as one that was pulled as a part of repository (host/path); empty: one that came another way.
func (s stores) put(t testing.TB, space, repository, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	ctx := namespaces.WithNamespace(context.Background(), space)
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	var options []content.Opt
	if host, path, ok := strings.Cut(repository, "/"); ok {
		options = append(options, content.WithLabels(map[string]string{"containerd.io/distribution.source." + host: path}))
	}
	if err := content.WriteBlob(ctx, s.content, desc.Digest.String(), bytes.NewReader(data), desc, options...); err != nil {
		t.Fatal(err)
	}
	return desc
}

// picture is an image in a store.
type picture struct {
	manifest, layer ocispec.Descriptor
	raw, bytes      []byte // the manifest, and its one layer
}

// image stores an image as the CRI would after a pull.
func (s stores) image(t testing.TB, name string, size int) picture {
	t.Helper()
	repository := name[:strings.LastIndexByte(name, ':')]
	p := picture{bytes: bytes.Repeat([]byte(name+"\n"), size/(len(name)+1)+1)[:size]}
	p.layer = s.put(t, namespace, repository, ocispec.MediaTypeImageLayer, p.bytes)
	settings := s.put(t, namespace, repository, ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux"}`))
	var err error
	p.raw, err = json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: settings, Layers: []ocispec.Descriptor{p.layer}})
	if err != nil {
		t.Fatal(err)
	}
	p.manifest = s.put(t, namespace, repository, ocispec.MediaTypeImageManifest, p.raw)
	s.tag(t, name, p.manifest)
	return p
}

func (s stores) tag(t testing.TB, name string, target ocispec.Descriptor) {
	t.Helper()
	if _, err := s.images.Create(namespaces.WithNamespace(context.Background(), namespace), images.Image{Name: name, Target: target}); err != nil {
		t.Fatal(err)
	}
}

// lockedBuffer is a log.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// node is a machine: its stores, and its registry as others and its own containerd ask it.
type node struct {
	stores
	*Mirror
	log    *lockedBuffer
	server *httptest.Server
	peers  []string // host:port
}

// newNode makes one that shares docker.io and r.example.
func newNode(t testing.TB, change func(*Config)) *node {
	t.Helper()
	n := &node{stores: newStores(t), log: &lockedBuffer{}}
	c := Config{
		Registries: []string{"docker.io", "r.example"}, Content: n.content, Images: n.images, Limits: DefaultLimits(),
		Peers: func() []string { return n.peers },
		TLS: func() (*tls.Config, error) {
			return &tls.Config{RootCAs: n.authorities(), ServerName: "example.com"}, nil
		},
		Log: slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	// A search ends when somebody has the thing or nobody does: its limit must not be what ends it on a slow machine.
	c.Limits.Search = 20 * time.Second
	if change != nil {
		change(&c)
	}
	var err error
	if n.Mirror, err = New(c); err != nil {
		t.Fatal(err)
	}
	n.server = serve(t, n.Mirror)
	t.Cleanup(n.client.CloseIdleConnections)
	return n
}

// serve is a node's listener.
func serve(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewTLSServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(s.Close)
	return s
}

func address(s *httptest.Server) string { return s.Listener.Addr().String() }

// authorities are what httptest's certificate, which all its servers have, is signed by.
func (n *node) authorities() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(n.server.Certificate())
	return pool
}

// answer is what a question got.
type answer struct {
	*http.Response
	body []byte
	err  error // of reading it
}

// fetch asks as this machine's containerd does, or as another node.
func (n *node) fetch(t testing.TB, method, path, registry string, peer bool, header ...string) answer {
	t.Helper()
	r, err := http.NewRequest(method, n.server.URL+path+"?ns="+registry, nil)
	if err != nil {
		t.Fatal(err)
	}
	if peer {
		r.Header.Set(HeaderPeer, "true")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	got, err := n.server.Client().Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	return answer{got, body, err}
}

// own asks as this machine's containerd does.
func (n *node) own(t testing.TB, path string, header ...string) answer {
	t.Helper()
	return n.fetch(t, http.MethodGet, path, "docker.io", false, header...)
}
