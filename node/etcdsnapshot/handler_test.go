package etcdsnapshot

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func post(t *testing.T, m *Manager, method, body string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(method, "/db/snapshot", strings.NewReader(body)))
	return w
}

func TestHandlerRefuses(t *testing.T) {
	m := newManager(t, still{learner: true}, "", nil)
	for _, c := range []struct {
		name, method, body string
		code               int
		says               string
	}{
		{"method", http.MethodGet, "", 405, "method"},
		{"no JSON", http.MethodPost, "save", 400, "snapshot request"},
		{"no operation", http.MethodPost, "{}", 400, "save, list, prune and delete"},
		{"unknown operation", http.MethodPost, `{"operation":"restore"}`, 400, "restore"},
		{"relative dir", http.MethodPost, `{"operation":"save","dir":"x"}`, 400, "absolute"},
		{"dir with dots", http.MethodPost, `{"operation":"save","dir":"/a/../b"}`, 400, "absolute"},
		{"retention", http.MethodPost, `{"operation":"prune","retention":-1}`, 400, "retention"},
		{"two names", http.MethodPost, `{"operation":"save","name":["a","b"]}`, 400, "one name"},
		{"bad prefix", http.MethodPost, `{"operation":"save","name":["a/b"]}`, 400, "a/b"},
		{"delete nothing", http.MethodPost, `{"operation":"delete"}`, 400, "no names"},
		{"delete a path", http.MethodPost, `{"operation":"delete","name":["../../etcd/config"]}`, 400, "list"},
		{"delete what is not there", http.MethodPost, `{"operation":"delete","name":["gone"]}`, 400, "gone"},
		{"object store without client", http.MethodPost, `{"operation":"list","s3":{"bucket":"b"}}`, 400, "object store"},
		{"learner", http.MethodPost, `{"operation":"save"}`, 503, "learner"},
		{"too long", http.MethodPost, `{"operation":"` + strings.Repeat("x", maxRequest) + `"}`, 400, "too large"},
	} {
		w := post(t, m, c.method, c.body)
		var status metav1.Status
		if err := json.Unmarshal(w.Body.Bytes(), &status); err != nil {
			t.Errorf("%s: no status: %v: %s", c.name, err, w.Body)
			continue
		}
		if w.Code != c.code || int(status.Code) != c.code || status.Status != "Failure" || !strings.Contains(status.Message, c.says) {
			t.Errorf("%s: got %d %+v, want %d with %q", c.name, w.Code, status, c.code, c.says)
		}
	}
}

func TestHandlerListsAndDeletes(t *testing.T) {
	m := newManager(t, still{}, "", nil)
	for _, name := range []string{"on-demand-cp-1-1700000002", "on-demand-cp-1-1700000001.zip", ".hidden"} {
		if err := os.WriteFile(filepath.Join(m.Dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := post(t, m, http.MethodPost, `{"operation":"list","unknownField":1}`)
	var got List
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
		t.Fatalf("%d %v: %s", w.Code, err, w.Body)
	}
	if got.Kind != "ETCDSnapshotFileList" || got.APIVersion != "k3s.cattle.io/v1" || len(got.Items) != 2 || got.Items[0].Spec.SnapshotName != "on-demand-cp-1-1700000001.zip" {
		t.Errorf("got %+v", got)
	}
	if !strings.HasPrefix(got.Items[0].Spec.Location, "file://"+m.Dir) {
		t.Errorf("location %q", got.Items[0].Spec.Location)
	}
	w = post(t, m, http.MethodPost, `{"operation":"delete","name":["on-demand-cp-1-1700000002","gone"]}`)
	if w.Code != 400 || len(list(t, m.Dir)) != 2 {
		t.Errorf("%d %s; left %v", w.Code, w.Body, list(t, m.Dir))
	}
	w = post(t, m, http.MethodPost, `{"operation":"delete","name":["on-demand-cp-1-1700000001.zip"]}`)
	var result Result
	if err := json.Unmarshal(w.Body.Bytes(), &result); err != nil || !slices.Equal(result.Deleted, []string{"on-demand-cp-1-1700000001.zip"}) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestHandlerPrunes(t *testing.T) {
	s := &shelf{files: []File{{Name: "etcd-snapshot-cp-1-1", Node: "cp-1"}, {Name: "etcd-snapshot-cp-1-2", Node: "cp-1"}, {Name: "etcd-snapshot-cp-2-1", Node: "cp-2"}}}
	var asked S3Config
	m := newManager(t, still{}, "", func(c *Config) {
		c.Connect = func(_ context.Context, c S3Config) (Remote, error) { asked = c; return s, nil }
	})
	for _, name := range []string{"etcd-snapshot-cp-1-1", "etcd-snapshot-cp-1-2", "on-demand-cp-1-1"} {
		if err := os.WriteFile(filepath.Join(m.Dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := post(t, m, http.MethodPost, `{"operation":"prune","retention":1,"s3":{"bucket":"b","secretKey":"k","timeout":"2m0s"}}`)
	if w.Code != 200 || len(s.files) != 2 || len(list(t, m.Dir)) != 2 {
		t.Errorf("%d %s: left %v and %v", w.Code, w.Body, list(t, m.Dir), s.files)
	}
	if asked.SecretKey.Reveal() != "k" || asked.Timeout.Minutes() != 2 {
		t.Errorf("the object store was asked for with %+v", asked)
	}
	// A retention of the object store's own comes first.
	s.files, s.keep = []File{{Name: "etcd-snapshot-cp-1-1", Node: "cp-1"}, {Name: "etcd-snapshot-cp-1-2", Node: "cp-1"}}, 2
	if post(t, m, http.MethodPost, `{"operation":"prune","retention":1,"s3":{}}`); len(s.files) != 2 {
		t.Errorf("left %v", s.files)
	}
}

func TestDeleteInBothPlaces(t *testing.T) {
	s := &shelf{files: []File{{Name: "one", Node: "cp-1", Location: "s3://b/one"}, {Name: "far", Node: "cp-2", Location: "s3://b/far"}}}
	m := newManager(t, still{}, "", func(c *Config) {
		c.Connect = func(context.Context, S3Config) (Remote, error) { return s, nil }
		c.S3 = &S3Config{}
	})
	if err := os.WriteFile(filepath.Join(m.Dir, "one"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := m.Delete(context.Background(), []string{"one", "far"}, Options{S3: m.S3})
	if err != nil || !slices.Equal(got.Deleted, []string{"one", "s3://b/one", "s3://b/far"}) || len(s.files) != 0 {
		t.Errorf("got %v, %v; left %v", got, err, s.files)
	}
	if _, err := m.Delete(context.Background(), []string{"one"}, Options{}); !errors.Is(err, ErrRequest) {
		t.Errorf("got %v", err)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"operation":"save","name":["a"],"dir":"/d","compress":true,"retention":3,"s3":{"timeout":"5m"}}`))
	f.Add([]byte(`{"operation":"delete","name":["a","b"]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseRequest(body)
		if err != nil {
			if !errors.Is(err, ErrRequest) {
				t.Errorf("%v is not the client's fault", err)
			}
			return
		}
		if r.Dir != nil && *r.Dir != "" && !filepath.IsAbs(*r.Dir) || r.Retention != nil && *r.Retention < 0 {
			t.Errorf("took %+v", r)
		}
	})
}
