package helmchart

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	helmv1 "github.com/k3s-io/helm-controller/pkg/apis/helm.cattle.io/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"keelson/node/release"
)

func toUnstructured(object any) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	return &unstructured.Unstructured{Object: content}, err
}

// Charts that are there, and what changes: a HelmChart, its HelmChartConfig, and a Secret with values.
func TestRun(t *testing.T) {
	c := newCluster(t)
	c.helm.done = make(chan string, 100)
	await := func(want string) {
		t.Helper()
		if got := <-c.helm.done; got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	watched := make(chan string, 100)
	c.metadata.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
		w, err := c.metadata.Tracker().Watch(a.GetResource(), a.GetNamespace())
		watched <- a.GetResource().Resource
		return true, w, err
	})
	awaitWatches := func(n int) {
		for range n {
			<-watched
		}
	}
	c.keepRecords("secrets")
	c.put("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {k: YTogMQo=}\n")
	c.chart("chartContent: AAAA", "valuesSecrets: [{name: s, keys: [k]}]")
	c.meta("helmcharts", "kube-system", "web", nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	controller, err := New(Config{Connect: func(context.Context) (Clients, error) { return c.clients(), nil }, Charts: c.source, Node: "one", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- controller.Run(ctx) }()
	await("ensure kube-system/web")

	awaitWatches(3) // of both kinds, and of the Secret
	c.config("values: {b: 1}")
	c.meta("helmchartconfigs", "kube-system", "web", nil, nil)
	await("ensure kube-system/web")

	c.put("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {k: YTogMgo=}\n")
	c.meta("secrets", "kube-system", "s", nil, nil)
	await("ensure kube-system/web")
	if got := c.last().Values["a"]; got != 2. {
		t.Errorf("got a: %v", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Every worker's failure is tried again.
func TestTriedAgain(t *testing.T) {
	c := newCluster(t)
	c.chart("chartContent: AAAA")
	c.helm.err = errors.New("no")
	c.run.queue.Add(web())
	if !c.run.next(t.Context()) || c.run.queue.NumRequeues(web()) != 1 {
		t.Errorf("got %d tries to come, want 1", c.run.queue.NumRequeues(web()))
	}
	c.helm.err = release.ErrAborted
	c.run.queue.Add(web())
	if !c.run.next(t.Context()) || c.run.queue.NumRequeues(web()) != 0 {
		t.Errorf("left alone: got %d tries to come, want 0", c.run.queue.NumRequeues(web()))
	}
	c.run.queue.ShutDown()
	for c.run.next(t.Context()) {
	}
}

// A status that is written is no reason to look at a chart again, and all else is.
func TestChanged(t *testing.T) {
	base := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Generation: 1, ResourceVersion: "1", UID: "u"}}
	for name, c := range map[string]struct {
		change func(*metav1.PartialObjectMetadata)
		want   bool
	}{
		"status":     {func(m *metav1.PartialObjectMetadata) { m.ResourceVersion = "2" }, false},
		"finalizer":  {func(m *metav1.PartialObjectMetadata) { m.Finalizers = []string{finalizer} }, false},
		"spec":       {func(m *metav1.PartialObjectMetadata) { m.Generation = 2 }, true},
		"deletion":   {func(m *metav1.PartialObjectMetadata) { m.DeletionTimestamp = &metav1.Time{} }, true},
		"annotation": {func(m *metav1.PartialObjectMetadata) { m.Annotations = map[string]string{annotationUnmanaged: ""} }, true},
		"another":    {func(m *metav1.PartialObjectMetadata) { m.UID = "v" }, true},
	} {
		now := base.DeepCopy()
		c.change(now)
		if got := changed(base, now); got != c.want {
			t.Errorf("%s: got %t, want %t", name, got, c.want)
		}
	}
}

// References are followed for as long as a chart has them, and once for all charts.
func TestReferences(t *testing.T) {
	c := newCluster(t)
	f := c.run.references
	a, b := web(), web()
	b.Name = "other"
	one, two := reference{"secrets", "ns", "one"}, reference{"configmaps", "ns", "two"}
	count := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.cancel) != len(f.wanted) {
			t.Errorf("%d watches for %d references", len(f.cancel), len(f.wanted))
		}
		return len(f.wanted)
	}
	for i, step := range []struct {
		set  func()
		want int
	}{
		{func() { f.set(t.Context(), a, map[reference]bool{one: true, two: true}) }, 2},
		{func() { f.set(t.Context(), b, map[reference]bool{one: true}) }, 2},
		{func() { f.set(t.Context(), a, map[reference]bool{two: true}) }, 2},
		{func() { f.set(t.Context(), b, nil) }, 1},
		{func() { f.set(t.Context(), a, nil) }, 0},
	} {
		step.set()
		if got := count(); got != step.want {
			t.Errorf("step %d: got %d references, want %d", i+1, got, step.want)
		}
	}
	f.end()
	f.set(t.Context(), a, map[reference]bool{one: true})
	if count() != 0 {
		t.Error("something is followed after the end")
	}
}

// Nothing reaches a cluster after the turn has ended, and what is on its way is ended.
func TestFence(t *testing.T) {
	arrived := make(chan bool, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			arrived <- true
			<-r.Context().Done()
		}
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	client := &http.Client{Transport: fence{ctx, http.DefaultTransport}}
	ask := func(path string) error {
		answer, err := client.Get(server.URL + path)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		_, err = io.ReadAll(answer.Body)
		return err
	}
	if err := ask("/"); err != nil {
		t.Fatal(err)
	}
	hanging := make(chan error)
	go func() { hanging <- ask("/hang") }()
	<-arrived
	cancel()
	if err := <-hanging; err == nil {
		t.Error("what was on its way went on")
	}
	if err := ask("/"); !errors.Is(err, errEnded) {
		t.Errorf("got %v", err)
	}
}

// Helm finds in what it is given a cluster, its kinds and the release's namespace.
func TestConnect(t *testing.T) {
	var paths []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.Method+" "+r.URL.Path)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	}))
	defer server.Close()
	clients, err := Connect(t.Context(), &rest.Config{Host: server.URL}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for driver, path := range map[helmv1.HelmDriver]string{"": "GET /api/v1/namespaces/apps/secrets", helmv1.HelmDriverConfigMap: "GET /api/v1/namespaces/apps/configmaps"} {
		paths = nil
		releases, err := clients.Releases("apps", driver)
		if err != nil {
			t.Fatal(err)
		}
		_ = releases.Remove(t.Context(), "web", 0)
		if !strings.Contains(strings.Join(paths, "\n"), path) {
			t.Errorf("driver %q asked %q, want %s", driver, paths, path)
		}
	}
	a, err := newAccess(&rest.Config{Host: server.URL}, "apps")
	if err != nil {
		t.Fatal(err)
	}
	if namespace, _, err := a.ToRawKubeConfigLoader().Namespace(); namespace != "apps" || err != nil {
		t.Errorf("got namespace %q, %v", namespace, err)
	}
	if _, err := Connect(t.Context(), &rest.Config{Host: ":bad:"}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a host that is none")
	}
}

func TestNewWantsAll(t *testing.T) {
	whole := Config{Connect: func(context.Context) (Clients, error) { return Clients{}, nil }, Charts: &source{}, Node: "one", Log: slog.New(slog.DiscardHandler)}
	for name, drop := range map[string]func(*Config){
		"a way": func(c *Config) { c.Connect = nil }, "charts": func(c *Config) { c.Charts = nil },
		"a node": func(c *Config) { c.Node = "" }, "a log": func(c *Config) { c.Log = nil },
	} {
		c := whole
		drop(&c)
		if _, err := New(c); err == nil {
			t.Errorf("without %s: no error", name)
		}
	}
}
