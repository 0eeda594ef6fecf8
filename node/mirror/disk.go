package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	imagesv1 "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// namespace is that of the CRI in containerd.
const namespace = "k8s.io"

// mostManifest is the largest manifest that containerd takes (core/remotes/docker, MaxManifestSize).
const mostManifest = 4 << 20

// Content is the part of containerd's content store that is read here.
type Content interface {
	Info(ctx context.Context, dgst digest.Digest) (content.Info, error)
	ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error)
}

// Images is the part of containerd's image store that is read here.
type Images interface {
	Get(ctx context.Context, name string) (images.Image, error)
}

// Open gives the stores of the containerd that listens on socket. It connects when it is first asked, and again whenever
// that is needed; the connection ends with the program.
func Open(socket string) (Content, Images, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, fmt.Errorf("mirror: connect to containerd: %w", err)
	}
	return contentproxy.NewContentStore(conn), client.NewImageStoreFromClient(imagesv1.NewImagesClient(conn)), nil
}

// fromDisk answers from this machine's containerd, and tells whether it had an answer.
func (m *Mirror) fromDisk(w *paced, r *http.Request, q question) bool {
	ctx := namespaces.WithNamespace(r.Context(), namespace)
	if q.tag != "" {
		image, err := m.config.Images.Get(ctx, q.registry+"/"+q.repository+":"+q.tag)
		if err != nil {
			m.note("look for image", q, err)
			return false
		}
		q.digest = image.Target.Digest
	}
	info, err := m.config.Content.Info(ctx, q.digest)
	if err != nil {
		m.note("look for content", q, err)
		return false
	}
	if !isFrom(info.Labels, q) {
		return false
	}
	blob, err := m.config.Content.ReaderAt(ctx, ocispec.Descriptor{Digest: q.digest, Size: info.Size})
	if err != nil {
		m.note("open content", q, err)
		return false
	}
	defer blob.Close()
	kind := "application/octet-stream"
	if q.manifest {
		if kind = manifestType(blob); kind == "" {
			return false
		}
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Docker-Content-Digest", q.digest.String())
	h.Set("Etag", strconv.Quote(q.digest.String()))
	section := io.NewSectionReader(blob, 0, blob.Size())
	http.ServeContent(w, r, "", time.Time{}, section)
	return true
}

// note logs what is not merely absent.
func (m *Mirror) note(what string, q question, err error) {
	if !errdefs.IsNotFound(err) {
		m.config.Log.Warn("mirror: "+what, "registry", q.registry, "path", q.path(), "error", err)
	}
}

// isFrom tells whether content was pulled as a part of the repository. containerd keeps that in labels, by the
// registry's name without port (core/remotes/docker, AppendDistributionSourceLabel). What came another way, the
// system's images above all, has no such label.
func isFrom(have map[string]string, q question) bool {
	repositories := have[labels.LabelDistributionSource+"."+strings.Trim(hostname(q.registry), "[]")]
	return slices.Contains(strings.Split(repositories, ","), q.repository)
}

// manifestType tells the media type of a manifest, and nothing of what is none. OCI's need not say it themselves.
func manifestType(blob content.ReaderAt) string {
	if blob.Size() > mostManifest {
		return ""
	}
	var m struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Layers    json.RawMessage `json:"layers"`
	}
	if err := json.NewDecoder(io.NewSectionReader(blob, 0, blob.Size())).Decode(&m); err != nil {
		return ""
	}
	switch {
	case images.IsIndexType(m.MediaType), images.IsManifestType(m.MediaType):
		return m.MediaType
	case m.MediaType != "":
		return ""
	case m.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	case m.Layers != nil:
		return ocispec.MediaTypeImageManifest
	}
	return ""
}
