package mirror

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	contentv1 "github.com/containerd/containerd/api/services/content/v1"
	imagesv1 "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const busybox = "docker.io/library/busybox:1.36"

// What another node asks for is answered from the disk, as the distribution API says.
func TestFromDisk(t *testing.T) {
	n := newNode(t, nil)
	p := n.image(t, busybox, 100_000)
	index := n.put(t, namespace, "docker.io/library/busybox", ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[]}`))
	docker := n.put(t, namespace, "docker.io/library/busybox", "", []byte(`{"schemaVersion":2,"mediaType":"`+images.MediaTypeDockerSchema2Manifest+`","layers":[]}`))
	system := n.put(t, namespace, "", ocispec.MediaTypeImageLayer, []byte("of the verified root"))
	other := n.put(t, "moby", "docker.io/library/busybox", ocispec.MediaTypeImageLayer, []byte("of another namespace"))
	base, layer := "/v2/library/busybox", string(p.bytes)
	for _, c := range []struct {
		name, path, byteRange string
		code                  int
		kind, body            string
	}{
		{"a manifest by tag", base + "/manifests/1.36", "", 200, ocispec.MediaTypeImageManifest, string(p.raw)},
		{"a manifest by digest", base + "/manifests/" + p.manifest.Digest.String(), "", 200, ocispec.MediaTypeImageManifest, string(p.raw)},
		{"a manifest has no parts", base + "/manifests/1.36", "bytes=0-3", 200, ocispec.MediaTypeImageManifest, string(p.raw)},
		{"an index that does not say what it is", base + "/manifests/" + index.Digest.String(), "", 200, ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[]}`},
		{"Docker's manifest", base + "/manifests/" + docker.Digest.String(), "", 200, images.MediaTypeDockerSchema2Manifest, `{"schemaVersion":2,"mediaType":"` + images.MediaTypeDockerSchema2Manifest + `","layers":[]}`},
		{"a layer", base + "/blobs/" + p.layer.Digest.String(), "", 200, "application/octet-stream", layer},
		{"a manifest as a blob", base + "/blobs/" + p.manifest.Digest.String(), "", 200, "application/octet-stream", string(p.raw)},
		{"the rest of a layer", base + "/blobs/" + p.layer.Digest.String(), "bytes=99990-", 206, "application/octet-stream", layer[99990:]},
		{"a part of a layer", base + "/blobs/" + p.layer.Digest.String(), "bytes=5-9", 206, "application/octet-stream", layer[5:10]},
		{"two parts: the whole", base + "/blobs/" + p.layer.Digest.String(), "bytes=5-9,20-30", 200, "application/octet-stream", layer},
		{"beyond its end", base + "/blobs/" + p.layer.Digest.String(), "bytes=100000-", 416, "text/plain; charset=utf-8", ""},
		{"an unknown tag", base + "/manifests/1.37", "", 404, "application/json", ""},
		{"an unknown digest", base + "/blobs/" + someDigest, "", 404, "application/json", ""},
		{"a layer as a manifest", base + "/manifests/" + p.layer.Digest.String(), "", 404, "application/json", ""},
		{"a layer by another repository's name", "/v2/library/alpine/blobs/" + p.layer.Digest.String(), "", 404, "application/json", ""},
		{"what was not pulled", base + "/blobs/" + system.Digest.String(), "", 404, "application/json", ""},
		{"what another namespace pulled", base + "/blobs/" + other.Digest.String(), "", 404, "application/json", ""},
		{"latest", base + "/manifests/latest", "", 404, "application/json", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				got := n.fetch(t, method, c.path, "docker.io", true, "Range", c.byteRange)
				if got.err != nil || got.StatusCode != c.code || got.Header.Get("Content-Type") != c.kind {
					t.Fatalf("%s: got %v %s %s, want %d %s", method, got.err, got.Status, got.Header.Get("Content-Type"), c.code, c.kind)
				}
				if c.code >= 300 {
					continue
				}
				if got.ContentLength != int64(len(c.body)) || method == http.MethodGet && string(got.body) != c.body {
					t.Errorf("%s: got %d bytes of %d, want %d", method, len(got.body), got.ContentLength, len(c.body))
				}
				if d := digest.Digest(got.Header.Get("Docker-Content-Digest")); c.code == 200 && d != digest.FromString(c.body) {
					t.Errorf("%s: digest: got %s", method, d)
				}
			}
		})
	}
	if log := n.log.String(); strings.Contains(log, "WARN") {
		t.Errorf("what is merely absent was logged: %s", log)
	}
}

// A layer that two repositories have is of both.
func TestFromDiskOfTwoRepositories(t *testing.T) {
	n := newNode(t, nil)
	p := n.image(t, busybox, 1000)
	ctx := namespaces.WithNamespace(context.Background(), namespace)
	_, err := n.content.Update(ctx, content.Info{Digest: p.layer.Digest, Labels: map[string]string{"containerd.io/distribution.source.docker.io": "library/alpine,library/busybox"}}, "labels")
	if err != nil {
		t.Fatal(err)
	}
	for repository, code := range map[string]int{"library/alpine": 200, "library/busybox": 200, "library": 404, "alpine": 404} {
		if got := n.fetch(t, http.MethodGet, "/v2/"+repository+"/blobs/"+p.layer.Digest.String(), "docker.io", true); got.StatusCode != code {
			t.Errorf("%s: got %s, want %d", repository, got.Status, code)
		}
	}
	if got := n.fetch(t, http.MethodGet, "/v2/library/busybox/blobs/"+p.layer.Digest.String(), "r.example", true); got.StatusCode != 404 {
		t.Errorf("another registry's: got %s, want 404", got.Status)
	}
}

// What a manifest is, is read out of it, and one that is none is not called one.
func TestManifestType(t *testing.T) {
	s := newStores(t)
	for _, c := range []struct{ name, body, want string }{
		{"an image", `{"layers":[]}`, ocispec.MediaTypeImageManifest},
		{"an index", `{"manifests":[]}`, ocispec.MediaTypeImageIndex},
		{"Docker's list", `{"mediaType":"` + images.MediaTypeDockerSchema2ManifestList + `"}`, images.MediaTypeDockerSchema2ManifestList},
		{"something else that says so", `{"mediaType":"text/html","layers":[]}`, ""},
		{"neither", `{"config":{}}`, ""},
		{"no JSON", "\x1f\x8b", ""},
		{"too large", `{"layers":[]}` + strings.Repeat(" ", mostManifest), ""},
	} {
		desc := s.put(t, namespace, "", "", []byte(c.body))
		blob, err := s.content.ReaderAt(namespaces.WithNamespace(context.Background(), namespace), desc)
		if err != nil {
			t.Fatal(err)
		}
		if got := manifestType(blob); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		_ = blob.Close()
	}
}

// failing is a content store whose disk is broken.
type failing struct{ Content }

func (failing) Info(context.Context, digest.Digest) (content.Info, error) {
	return content.Info{}, errors.New("input/output error")
}

// A disk that cannot be read is not silently an image that is absent.
func TestFromDiskTellsOfABrokenDisk(t *testing.T) {
	n := newNode(t, func(c *Config) { c.Content = failing{c.Content} })
	if got := n.fetch(t, http.MethodGet, "/v2/a/blobs/"+someDigest, "docker.io", true); got.StatusCode != 404 {
		t.Errorf("got %s, want 404", got.Status)
	}
	if log := n.log.String(); !strings.Contains(log, "input/output error") || !strings.Contains(log, someDigest) {
		t.Errorf("log: got %s", log)
	}
}

// imageServer is containerd's API over a store.
type imageServer struct {
	imagesv1.UnimplementedImagesServer
	store images.Store
}

func (s imageServer) Get(ctx context.Context, r *imagesv1.GetImageRequest) (*imagesv1.GetImageResponse, error) {
	i, err := s.store.Get(ctx, r.Name)
	if errdefs.IsNotFound(err) {
		err = status.Error(codes.NotFound, err.Error())
	}
	return &imagesv1.GetImageResponse{Image: &imagesv1.Image{Name: i.Name, Target: oci.DescriptorToProto(i.Target)}}, err
}

// Open reads containerd's stores over its socket, with the namespace that it is given, before and after containerd starts anew.
func TestOpen(t *testing.T) {
	s := newStores(t)
	p := s.image(t, busybox, 300_000)
	socket := filepath.Join(t.TempDir(), "c.sock")
	blobs, pictures, err := Open(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx := namespaces.WithNamespace(context.Background(), namespace)
	if _, err := pictures.Get(ctx, busybox); err == nil || errdefs.IsNotFound(err) {
		t.Fatalf("without a containerd: got %v", err)
	}
	for range 2 {
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		contentv1.RegisterContentServer(server, contentserver.New(s.content))
		imagesv1.RegisterImagesServer(server, imageServer{store: s.images})
		done := make(chan error, 1)
		go func() { done <- server.Serve(l) }()

		image, err := pictures.Get(ctx, busybox)
		for tries := 0; errdefs.IsUnavailable(err) && tries < 1_000_000; tries++ { // gRPC waits for its own time before it connects again
			image, err = pictures.Get(ctx, busybox)
		}
		if err != nil || image.Target.Digest != p.manifest.Digest {
			t.Fatalf("image: got %+v, %v", image, err)
		}
		if _, err := pictures.Get(ctx, "docker.io/library/absent:1"); !errdefs.IsNotFound(err) {
			t.Errorf("an absent image: got %v", err)
		}
		if _, err := blobs.Info(ctx, someDigest); !errdefs.IsNotFound(err) {
			t.Errorf("an absent blob: got %v", err)
		}
		info, err := blobs.Info(ctx, p.layer.Digest)
		if err != nil || info.Labels["containerd.io/distribution.source.docker.io"] != "library/busybox" {
			t.Errorf("info: got %+v, %v", info, err)
		}
		reader, err := blobs.ReaderAt(ctx, p.layer)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, reader.Size())
		if _, err := reader.ReadAt(got, 0); err != nil || !bytes.Equal(got, p.bytes) {
			t.Errorf("blob: %d bytes, %v", len(got), err)
		}
		_ = reader.Close()
		server.Stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}
