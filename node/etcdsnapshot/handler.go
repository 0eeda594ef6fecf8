package etcdsnapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Request is the body that /db/snapshot takes (k3s pkg/etcd, SnapshotRequest).
type Request struct {
	Operation string    `json:"operation"`
	Name      []string  `json:"name,omitempty"`
	Dir       *string   `json:"dir,omitempty"`
	Compress  *bool     `json:"compress,omitempty"`
	Retention *int      `json:"retention,omitempty"`
	S3        *S3Config `json:"s3,omitempty"`
}

// Operations of a request.
const (
	OperationSave   = "save"
	OperationList   = "list"
	OperationPrune  = "prune"
	OperationDelete = "delete"
)

// maxRequest is more than any request needs.
const maxRequest = 1 << 20

// Handler answers /db/snapshot. Who asks has been found to have the server role already: its errors tell all.
func (m *Manager) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			fail(w, http.StatusMethodNotAllowed, errors.New("method not allowed"))
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			fail(w, http.StatusBadRequest, fmt.Errorf("read request: %w", err))
			return
		}
		// A snapshot and its upload take longer than the listener lets an answer take.
		c := http.NewResponseController(w)
		_ = errors.Join(c.SetWriteDeadline(time.Time{}), c.SetReadDeadline(time.Time{}))
		answer, err := m.answer(r.Context(), body)
		if err != nil {
			fail(w, statusOf(err), err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(answer)
	})
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrRequest):
		return http.StatusBadRequest
	case errors.Is(err, ErrBusy):
		return http.StatusConflict
	case errors.Is(err, ErrSpace):
		return http.StatusInsufficientStorage
	case errors.Is(err, ErrLearner):
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

func (m *Manager) answer(ctx context.Context, body []byte) (any, error) {
	r, err := parseRequest(body)
	if err != nil {
		return nil, err
	}
	o := Options{Prefix: OnDemandPrefix, Compress: m.Compress, Retention: m.Retention, S3: r.S3}
	if r.Operation == OperationPrune {
		o.Prefix = m.Prefix
	}
	if r.S3 == nil {
		o.S3 = m.S3
	}
	if r.Dir != nil {
		o.Dir = *r.Dir
	}
	if r.Compress != nil {
		o.Compress = *r.Compress
	}
	if r.Retention != nil {
		o.Retention = *r.Retention
	}
	if len(r.Name) > 0 {
		o.Prefix = r.Name[0]
	}
	switch r.Operation {
	case OperationSave:
		return m.Save(ctx, o)
	case OperationPrune:
		return m.Prune(ctx, o)
	case OperationDelete:
		return m.Delete(ctx, r.Name, o)
	default:
		files, err := m.List(ctx, o)
		if err != nil {
			return nil, err
		}
		list := List{TypeMeta: metav1.TypeMeta{APIVersion: APIVersion, Kind: Kind + "List"}, Items: []Object{}}
		for _, f := range files {
			list.Items = append(list.Items, ObjectOf(f))
		}
		return list, nil
	}
}

// parseRequest reads a body. Fields that this version does not know are RKE2's newer ones, and passed over.
func parseRequest(body []byte) (Request, error) {
	var r Request
	if err := json.Unmarshal(body, &r); err != nil {
		return Request{}, fmt.Errorf("%w: the body is no snapshot request: %w", ErrRequest, err)
	}
	switch r.Operation {
	case OperationSave, OperationList, OperationPrune, OperationDelete:
	default:
		return Request{}, fmt.Errorf("%w: operation %q: save, list, prune and delete are known", ErrRequest, r.Operation)
	}
	if r.Dir != nil && *r.Dir != "" && (!filepath.IsAbs(*r.Dir) || filepath.Clean(*r.Dir) != *r.Dir) {
		return Request{}, fmt.Errorf("%w: dir %q: without . and .. in it, an absolute path is wanted", ErrRequest, *r.Dir)
	}
	if r.Retention != nil && *r.Retention < 0 {
		return Request{}, fmt.Errorf("%w: retention %d is less than nothing", ErrRequest, *r.Retention)
	}
	if r.Operation != OperationDelete && len(r.Name) > 1 {
		return Request{}, fmt.Errorf("%w: operation %s takes one name", ErrRequest, r.Operation)
	}
	return r, nil
}

// fail answers with metav1.Status and ends the connection, as the supervisor API does.
func fail(w http.ResponseWriter, code int, err error) {
	body, _ := json.Marshal(metav1.Status{ // of strings and a number: it always marshals
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
		Message: err.Error(), Reason: metav1.StatusReason(reason(code)), Code: int32(code),
	})
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Connection", "close")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n'))
}

func reason(code int) metav1.StatusReason {
	switch code {
	case http.StatusBadRequest:
		return metav1.StatusReasonBadRequest
	case http.StatusConflict:
		return metav1.StatusReasonConflict
	case http.StatusMethodNotAllowed:
		return metav1.StatusReasonMethodNotAllowed
	case http.StatusServiceUnavailable:
		return metav1.StatusReasonServiceUnavailable
	default:
		return metav1.StatusReasonInternalError
	}
}
