package helmchart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	helmv1 "github.com/k3s-io/helm-controller/pkg/apis/helm.cattle.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	"sigs.k8s.io/yaml"

	"keelson/node/chartsource"
	"keelson/node/release"
)

// helm plays node/release for all namespaces.
type helm struct {
	mu      sync.Mutex
	wanted  []release.Wanted
	removed []string
	err     error
	done    chan string // what was done, for who waits; nil: nobody does
	records func(release.Wanted)
}

func (h *helm) Ensure(_ context.Context, w release.Wanted) (release.Done, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wanted = append(h.wanted, w)
	h.tell("ensure " + w.Namespace + "/" + w.Name)
	if h.err != nil {
		return release.Nothing, h.err
	}
	if h.records != nil {
		h.records(w)
	}
	if len(h.wanted) > 1 {
		return release.Upgraded, nil
	}
	return release.Installed, nil
}

func (h *helm) tell(what string) {
	if h.done != nil {
		h.done <- what
	}
}

type inNamespace struct {
	*helm
	namespace string
}

func (h inNamespace) Remove(_ context.Context, name string, _ time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removed = append(h.removed, h.namespace+"/"+name)
	h.tell("remove " + h.namespace + "/" + name)
	return h.err
}

// source plays node/chartsource.
type source struct {
	mu    sync.Mutex
	err   error
	asked []chartsource.Request
}

func (s *source) Identify(r chartsource.Request) (string, error) { return r.String() + r.Content, nil }

func (s *source) Load(_ context.Context, r chartsource.Request) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r)
	return []byte("the chart"), s.err
}

// cluster is a fake one, with one controller at work in it.
type cluster struct {
	t        *testing.T
	dynamic  *dynamicfake.FakeDynamicClient
	metadata *metadatafake.FakeMetadataClient
	helm     *helm
	source   *source
	run      *run
	mu       sync.Mutex
	told     []string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c := &cluster{
		t: t, helm: &helm{}, source: &source{}, metadata: metadatafake.NewSimpleMetadataClient(scheme),
		dynamic: dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
			charts(): "HelmChartList", configs(): "HelmChartConfigList", secrets(): "SecretList", configMaps(): "ConfigMapList",
		}),
	}
	controller, err := New(Config{
		Connect: func(context.Context) (Clients, error) { return c.clients(), nil }, Charts: c.source, Node: "one", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	c.run = newRun(controller, c.clients())
	c.run.tell = func(chart *helmv1.HelmChart, n note) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.told = append(c.told, n.severity+" "+n.reason+": "+n.text)
	}
	t.Cleanup(c.run.references.end)
	return c
}

func (c *cluster) clients() Clients {
	return Clients{Dynamic: c.dynamic, Metadata: c.metadata, Releases: func(namespace string, driver helmv1.HelmDriver) (Releases, error) {
		if driver == "broken" {
			return nil, errors.New("no such driver")
		}
		return inNamespace{c.helm, namespace}, nil
	}}
}

func resourceOf(object *unstructured.Unstructured) schema.GroupVersionResource {
	return object.GroupVersionKind().GroupVersion().WithResource(strings.ToLower(object.GetKind()) + "s")
}

// put creates an object of a text, or replaces it.
func (c *cluster) put(text string) *unstructured.Unstructured {
	c.t.Helper()
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &object.Object); err != nil {
		c.t.Fatal(err)
	}
	if object.GetNamespace() == "" {
		object.SetNamespace("kube-system")
	}
	client := c.dynamic.Resource(resourceOf(object)).Namespace(object.GetNamespace())
	_, err := client.Create(c.t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		_, err = client.Update(c.t.Context(), object, metav1.UpdateOptions{})
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return object
}

// chart puts a HelmChart called web, of lines of its spec.
func (c *cluster) chart(spec ...string) {
	c.t.Helper()
	c.put("apiVersion: helm.cattle.io/v1\nkind: HelmChart\nmetadata: {name: web, uid: u}\nspec:\n  " + strings.Join(spec, "\n  ") + "\n")
}

func (c *cluster) config(spec ...string) {
	c.t.Helper()
	c.put("apiVersion: helm.cattle.io/v1\nkind: HelmChartConfig\nmetadata: {name: web}\nspec:\n  " + strings.Join(spec, "\n  ") + "\n")
}

func web() types.NamespacedName { return types.NamespacedName{Namespace: "kube-system", Name: "web"} }

// reconcile wants no error, or one with a text.
func (c *cluster) reconcile(problem string) error {
	c.t.Helper()
	_, err := c.run.reconcile(c.t.Context(), web())
	if (err != nil) != (problem != "") || err != nil && !strings.Contains(err.Error(), problem) {
		c.t.Fatalf("got %v, want %q", err, problem)
	}
	return err
}

func (c *cluster) get() *helmv1.HelmChart {
	c.t.Helper()
	chart := &helmv1.HelmChart{}
	found, err := c.run.get(c.t.Context(), charts(), "kube-system", "web", chart)
	if err != nil || !found {
		c.t.Fatalf("read the HelmChart: %t, %v", found, err)
	}
	return chart
}

// status is the conditions, as "JobCreated=True Failed=False", with what the failure says.
func (c *cluster) status() string {
	c.t.Helper()
	var parts []string
	for _, condition := range c.get().Status.Conditions {
		parts = append(parts, fmt.Sprintf("%s=%s", condition.Type, condition.Status))
		if condition.Type == helmv1.HelmChartFailed && condition.Message != "" {
			parts = append(parts, condition.Reason+": "+condition.Message)
		}
	}
	return strings.Join(parts, " ")
}

func (c *cluster) wantStatus(want string) {
	c.t.Helper()
	if got := c.status(); !strings.HasPrefix(got, want) {
		c.t.Errorf("status: got %q, want %q", got, want)
	}
}

// events are those since the last call.
func (c *cluster) events() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.told = nil }()
	return strings.Join(c.told, "\n")
}

func (c *cluster) wantEvent(parts ...string) {
	c.t.Helper()
	got := c.events()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			c.t.Errorf("events: got %q, want %q in them", got, part)
		}
	}
}

// last is what was asked of Helm last.
func (c *cluster) last() release.Wanted {
	c.t.Helper()
	c.helm.mu.Lock()
	defer c.helm.mu.Unlock()
	if len(c.helm.wanted) == 0 {
		c.t.Fatal("nothing was asked of Helm")
	}
	return c.helm.wanted[len(c.helm.wanted)-1]
}

func (c *cluster) asked() int {
	c.helm.mu.Lock()
	defer c.helm.mu.Unlock()
	return len(c.helm.wanted)
}

// keepRecords has releases be on record, as Helm's driver labels them.
func (c *cluster) keepRecords(resource string) {
	version := 0
	c.helm.records = func(w release.Wanted) {
		version++
		c.meta(resource, w.Namespace, fmt.Sprintf("sh.helm.release.v1.%s.v%d", w.Name, version), map[string]string{
			"owner": "helm", "name": w.Name, "version": fmt.Sprint(version), "status": "deployed", release.LabelHash: w.Hash,
		}, nil)
	}
}

// meta puts the metadata of an object of Kubernetes' own.
func (c *cluster) meta(resource, namespace, name string, labels, annotations map[string]string) {
	c.t.Helper()
	of, known := map[string]schema.GroupVersionResource{
		"secrets": secrets(), "configmaps": configMaps(), "jobs": {Group: "batch", Version: "v1", Resource: "jobs"},
		"serviceaccounts": corev1.SchemeGroupVersion.WithResource("serviceaccounts"), "helmcharts": charts(), "helmchartconfigs": configs(),
		"clusterrolebindings": {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
	}[resource]
	if !known {
		c.t.Fatalf("no resource %s", resource)
	}
	m := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels, Annotations: annotations, UID: types.UID(name)}}
	m.SetGroupVersionKind(of.GroupVersion().WithKind("Any"))
	tracker := c.metadata.Tracker()
	if err := tracker.Create(of, m, namespace); err != nil {
		c.t.Error(err)
	}
}

func (c *cluster) hasMeta(of schema.GroupVersionResource, namespace, name string) bool {
	_, err := c.metadata.Tracker().Get(of, namespace, name)
	return err == nil
}
