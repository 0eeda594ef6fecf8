package addons

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// cluster is an API server that keeps objects by their paths, as far as the applier asks it.
type cluster struct {
	*httptest.Server
	mu       sync.Mutex
	objects  map[string]map[string]any
	requests []string
	refuse   string // answer 500 to paths with this
	unserved int    // how many more questions for Addons are answered as if their kind were unknown
	events   []map[string]any
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{objects: map[string]map[string]any{}}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, r.Method+" "+r.URL.Path)
	w.Header().Set("Content-Type", "application/json")
	fail := func(code int, reason string) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": reason})
	}
	if c.refuse != "" && strings.Contains(r.URL.Path, c.refuse) {
		fail(http.StatusInternalServerError, "InternalError")
		return
	}
	if strings.HasPrefix(r.URL.Path, addonsPath) && c.unserved > 0 {
		c.unserved--
		http.NotFound(w, r)
		return
	}
	if selector := r.URL.Query().Get("labelSelector"); selector != "" {
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": "List", "apiVersion": "v1", "items": c.marked(r.URL.Path, selector)})
		return
	}
	object, known := c.objects[r.URL.Path]
	switch r.Method {
	case http.MethodPost:
		event := map[string]any{}
		if err := json.NewDecoder(r.Body).Decode(&event); err != nil || !strings.HasSuffix(r.URL.Path, "/events") {
			fail(http.StatusBadRequest, "BadRequest")
			return
		}
		c.events = append(c.events, event)
		_ = json.NewEncoder(w).Encode(event)
		return
	case http.MethodPatch:
		if r.URL.Query().Get("fieldManager") != fieldManager || r.Header.Get("Content-Type") != "application/apply-patch+yaml" {
			fail(http.StatusBadRequest, "BadRequest")
			return
		}
		body, _ := io.ReadAll(r.Body)
		object = map[string]any{}
		if err := json.Unmarshal(body, &object); err != nil {
			fail(http.StatusBadRequest, "BadRequest")
			return
		}
		object["metadata"].(map[string]any)["uid"] = "u"
		c.objects[r.URL.Path] = object
	case http.MethodDelete:
		delete(c.objects, r.URL.Path)
	}
	if object == nil || !known && r.Method != http.MethodPatch {
		fail(http.StatusNotFound, "NotFound")
		return
	}
	_ = json.NewEncoder(w).Encode(object)
}

// marked lists the objects of a collection, of all namespaces, that have a label.
func (c *cluster) marked(collection, selector string) []any {
	items := []any{}
	base, resource := path.Split(collection)
	label, value, _ := strings.Cut(selector, "=")
	for _, at := range slices.Sorted(maps.Keys(c.objects)) {
		parts := strings.Split(strings.TrimPrefix(at, base), "/")
		namespaced := len(parts) == 4 && parts[0] == "namespaces" && parts[2] == resource
		if !strings.HasPrefix(at, base) || !namespaced && (len(parts) != 2 || parts[0] != resource) {
			continue
		}
		meta := c.objects[at]["metadata"].(map[string]any)
		if labels, _ := meta["labels"].(map[string]any); labels[label] == value {
			items = append(items, c.objects[at])
		}
	}
	return items
}

// paths are those of all objects but Addons and their kind.
func (c *cluster) paths() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for at := range c.objects {
		if !strings.HasPrefix(at, addonsPath) && !strings.HasSuffix(at, "/addons.k3s.cattle.io") {
			all = append(all, at)
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// addon is an Addon's source, checksum and kinds, or nothing.
func (c *cluster) addon(name string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	object, ok := c.objects[addonsPath+name]
	if !ok {
		return nil
	}
	rec := recordOf(&unstructured.Unstructured{Object: object})
	return []string{filepath.Base(rec.source), rec.checksum, object["metadata"].(map[string]any)["annotations"].(map[string]any)[annotationKinds].(string)}
}

// sumOf is what an Addon has of a content.
func sumOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

// kinds is a mapper that learns widgets at its first reset after they are installed.
type kinds struct {
	*meta.DefaultRESTMapper
	widgets func() bool
}

func newKinds() *kinds {
	k := &kinds{DefaultRESTMapper: meta.NewDefaultRESTMapper(nil), widgets: func() bool { return false }}
	k.Add(schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, meta.RESTScopeNamespace)
	k.Add(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}, meta.RESTScopeRoot)
	k.Add(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}, meta.RESTScopeRoot)
	return k
}

func (k *kinds) Reset() {
	if k.widgets() {
		k.Add(schema.GroupVersionKind{Group: "x.io", Version: "v1", Kind: "Widget"}, meta.RESTScopeNamespace)
	}
}

func configMap(names ...string) string {
	var parts []string
	for _, name := range names {
		parts = append(parts, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: "+name+"\n  namespace: kube-system\n")
	}
	return strings.Join(parts, "---\n")
}

const (
	addonsPath = "/apis/k3s.cattle.io/v1/namespaces/kube-system/addons/"

	cm     = "/api/v1/namespaces/kube-system/configmaps/"
	widget = "apiVersion: x.io/v1\nkind: Widget\nmetadata: {name: w}\n"
)

type harness struct {
	t       *testing.T
	cluster *cluster
	kinds   *kinds
	dir     string
	events  chan Event
	cfg     Config
}

func newHarness(t *testing.T) *harness {
	h := &harness{t: t, cluster: newCluster(t), kinds: newKinds(), dir: t.TempDir(), events: make(chan Event, 1000)}
	client, err := dynamic.NewForConfig(&rest.Config{Host: h.cluster.URL, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	h.cfg = Config{
		Dir: h.dir, Client: client, Mapper: h.kinds,
		Observe: func(e Event) { h.events <- e }, Log: slog.New(slog.DiscardHandler),
	}
	return h
}

func (h *harness) write(name, content string) {
	h.t.Helper()
	file := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// once makes one pass of a new controller, as a start does.
func (h *harness) once() (whole bool) {
	h.t.Helper()
	c, err := New(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.watcher.Close()
	return c.pass(h.t.Context())
}

func (h *harness) want(paths ...string) {
	h.t.Helper()
	if got, want := h.cluster.paths(), strings.Join(paths, "\n"); got != want {
		h.t.Errorf("the cluster has\n%s\nwant\n%s", got, want)
	}
}

func TestAppliesAndPrunesAcrossStarts(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", configMap("one", "two"))
	h.write("sub/b.json", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"ns"}}`)
	h.write("skipped.yaml", configMap("skipped"))
	h.write("skipped.yaml.skip", "")
	h.write(".hidden.yaml", configMap("hidden"))
	h.write("README.md", "no manifest")
	if !h.once() {
		t.Error("something is left to do")
	}
	h.want(cm+"one", cm+"two", "/api/v1/namespaces/ns")
	meta := h.cluster.objects[cm+"one"]["metadata"].(map[string]any)
	if meta["annotations"].(map[string]any)[annotationName] != "a" || meta["labels"].(map[string]any)[labelHash] != ownerHash("a") {
		t.Errorf("owner is not marked: %v", meta)
	}

	h.write("a.yaml", configMap("two", "three"))
	if err := os.Remove(filepath.Join(h.dir, "sub/b.json")); err != nil {
		t.Fatal(err)
	}
	h.once()
	// What left a file goes; what a removed file had stays.
	h.want(cm+"three", cm+"two", "/api/v1/namespaces/ns")
}

func TestPruneLeavesWhatIsAnothers(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", configMap("one", "two"))
	h.once()
	h.cluster.objects[cm+"one"]["metadata"].(map[string]any)["labels"] = map[string]any{labelHash: ownerHash("b")}
	h.write("a.yaml", configMap("two"))
	h.once()
	h.want(cm+"one", cm+"two")
}

func TestFailedDocumentIsRetriedAndPrunesNothing(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", configMap("one", "two"))
	h.once()
	<-h.events
	h.write("a.yaml", configMap("two", "three"))
	h.cluster.refuse = "three"
	if h.once() {
		t.Error("a failure was taken for success")
	}
	h.want(cm+"one", cm+"two")
	if e := <-h.events; e.Err == nil || !strings.Contains(e.Err.Error(), "a.yaml: document 2 (line 7): ConfigMap three") {
		t.Errorf("got event %+v", e)
	}
	h.cluster.refuse = ""
	h.once()
	h.want(cm+"three", cm+"two")
}

func TestKindThatComesLater(t *testing.T) {
	h := newHarness(t)
	crd := "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.x.io"
	h.kinds.widgets = func() bool { return strings.Contains(h.cluster.paths(), crd) }
	h.write("a-widget.yaml", widget)
	h.write("b-crd.yaml", "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets.x.io}\n")
	c, err := New(h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.watcher.Close()
	if c.pass(t.Context()) {
		t.Error("first pass: the widget's kind cannot be known yet")
	}
	if !c.pass(t.Context()) {
		t.Error("second pass: want all applied")
	}
	h.want(crd, "/apis/x.io/v1/namespaces/default/widgets/w")
}

func TestDisable(t *testing.T) {
	h := newHarness(t)
	h.write("rke2-a.yaml", configMap("one"))
	h.write("rke2-b.yaml", configMap("two"))
	h.once()
	h.write("rke2-a.yaml", configMap("other")) // what was applied before is removed too
	if err := os.Remove(filepath.Join(h.dir, "rke2-b.yaml")); err != nil {
		t.Fatal(err)
	}
	h.cfg.Disable = []string{"rke2-a", "rke2-b", "rke2-never"}
	if !h.once() {
		t.Error("something is left to do")
	}
	h.want()
	if _, err := os.Stat(filepath.Join(h.dir, "rke2-a.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestBrokenFile(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", configMap("one", "two"))
	h.once()
	<-h.events
	h.write("a.yaml", configMap("three")+"---\na: [\n")
	h.once()
	h.want(cm+"one", cm+"three", cm+"two")
	if e := <-h.events; e.Err == nil || !strings.Contains(e.Err.Error(), "document 2 (line 7)") {
		t.Errorf("got event %+v", e)
	}
}

func TestRunFollowsChanges(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", configMap("one"))
	c, err := New(h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	await := func(addon string) {
		t.Helper()
		select {
		case e := <-h.events:
			if e.Addon != addon || e.Err != nil {
				t.Fatalf("got event %+v, want %s applied", e, addon)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("no event for %s", addon)
		}
	}
	await("a")
	h.write("b.yaml", configMap("two"))
	await("b")
	h.write("a.yaml", configMap("three"))
	await("a")
	h.want(cm+"three", cm+"two")
	if err := os.Mkdir(filepath.Join(h.dir, "later"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.write("later/c.yaml", configMap("four"))
	await("c")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("stopped: got %v", err)
	}
}
