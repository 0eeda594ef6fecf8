package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
)

// tries is how many peers that said they had a thing are asked for it.
const tries = 3

// fromPeers answers with what another node has, and tells whether one had it. While nothing has been sent on, another
// peer is tried; afterwards the connection is cut, and containerd asks for the rest (core/remotes/docker,
// httpreadseeker.go).
func (m *Mirror) fromPeers(w *paced, r *http.Request, q question) bool {
	var failed []string
	for range tries {
		peer, head := m.find(r.Context(), q, r.Header, failed)
		if peer == "" {
			return false
		}
		if r.Method == http.MethodHead {
			copyHead(w, head, q)
			w.WriteHeader(head.StatusCode)
			return true
		}
		sent, err := m.transfer(w, r, q, peer)
		if err == nil {
			return true
		}
		if errors.Is(err, errDigest) {
			m.memory.distrust(peer)
		}
		m.config.Log.Warn("mirror: transfer", "peer", peer, "registry", q.registry, "path", q.path(), "error", err)
		if sent {
			panic(http.ErrAbortHandler) // net/http's way to end an answer that cannot be completed
		}
		failed = append(failed, peer)
	}
	return false
}

// errDigest is content that is not what was asked for.
var errDigest = errors.New("the content is not that of its digest")

// transfer fetches from one peer and sends on. sent tells that the answer has begun.
func (m *Mirror) transfer(w *paced, r *http.Request, q question, peer string) (sent bool, err error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	watch := time.AfterFunc(m.config.Limits.Stall, func() { cancel(errors.New("no progress")) })
	defer watch.Stop()
	answer, err := m.ask(ctx, http.MethodGet, peer, q, r.Header)
	if err != nil {
		return false, errors.Join(err, context.Cause(ctx))
	}
	defer answer.Body.Close()
	body := &moving{Reader: answer.Body, watch: watch, stall: m.config.Limits.Stall}
	if q.manifest {
		return m.manifest(w, q, answer, body)
	}
	copyHead(w, answer, q)
	if answer.StatusCode != http.StatusOK {
		w.WriteHeader(answer.StatusCode)
		n, err := w.ReadFrom(body)
		return true, whole(n, answer, err) // a part has no digest: containerd verifies the whole
	}
	// The last bytes go out when all are known to be right, so that containerd never takes wrong content for a whole.
	verify := q.digest.Verifier()
	hold := &holding{to: w}
	n, err := io.CopyBuffer(io.MultiWriter(verify, hold), onlyReader{body}, make([]byte, chunk))
	if err = whole(n, answer, err); err != nil {
		return hold.sent, errors.Join(err, context.Cause(ctx))
	}
	if !verify.Verified() {
		return hold.sent, errDigest
	}
	return true, hold.flush()
}

func whole(n int64, answer *http.Response, err error) error {
	if err == nil && n != answer.ContentLength {
		return fmt.Errorf("it ended after %d bytes of %d", n, answer.ContentLength)
	}
	return err
}

// manifest is small: it is verified before anything of it is sent on.
func (m *Mirror) manifest(w *paced, q question, answer *http.Response, body io.Reader) (sent bool, err error) {
	content, err := io.ReadAll(io.LimitReader(body, mostManifest+1))
	if err = whole(int64(len(content)), answer, err); err != nil {
		return false, err
	}
	want := q.digest
	if q.tag != "" {
		want = digest.Digest(answer.Header.Get("Docker-Content-Digest"))
	}
	if want.Algorithm().FromBytes(content) != want {
		return false, errDigest
	}
	copyHead(w, answer, q)
	_, err = io.Copy(w, bytes.NewReader(content))
	return true, err
}

func passedOn() []string {
	return []string{"Content-Type", "Content-Length", "Content-Range", "Docker-Content-Digest", "Accept-Ranges"}
}

// copyHead passes on what of an answer's head means something here.
func copyHead(w http.ResponseWriter, answer *http.Response, q question) {
	for _, name := range passedOn() {
		if value := answer.Header.Get(name); value != "" {
			w.Header().Set(name, value)
		}
	}
	if q.digest != "" {
		w.Header().Set("Docker-Content-Digest", q.digest.String())
	}
}

// moving puts the end of a transfer off whenever something arrives.
type moving struct {
	io.Reader
	watch *time.Timer
	stall time.Duration
}

// Read implements io.Reader.
func (m *moving) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	if n > 0 {
		m.watch.Reset(m.stall)
	}
	return n, err
}

// holding sends on all but the latest piece.
type holding struct {
	to   *paced
	last []byte
	sent bool
}

// Write implements io.Writer.
func (h *holding) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := h.flush(); err != nil {
		return 0, err
	}
	h.last = append(h.last[:0], p...)
	return len(p), nil
}

func (h *holding) flush() error {
	if len(h.last) == 0 {
		return nil
	}
	h.sent = true
	h.to.progress()
	_, err := h.to.Write(h.last)
	h.last = h.last[:0]
	return err
}

// onlyReader hides whatever else a reader can do, which io.CopyBuffer would do instead of using its buffer.
type onlyReader struct{ io.Reader }
