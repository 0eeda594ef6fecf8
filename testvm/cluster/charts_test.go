package cluster

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v4/pkg/registry"
	v1 "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage"
	"helm.sh/helm/v4/pkg/storage/driver"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"keelson/testvm/cidata"
	"keelson/testvm/kube"
)

// chartOf packs a chart, as helm package does.
func chartOf(t *testing.T, name, version string, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	add := func(file, content string) {
		err := w.WriteHeader(&tar.Header{Name: name + "/" + file, Mode: 0o644, Size: int64(len(content))})
		if err == nil {
			_, err = io.WriteString(w, content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	add("Chart.yaml", "apiVersion: v2\nname: "+name+"\nversion: "+version+"\n")
	for file, content := range files {
		add(file, content)
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// webChart is a Deployment that serves, and a ConfigMap with a text that must be given.
func webChart(t *testing.T, version string) []byte {
	return chartOf(t, "web", version, map[string]string{
		"values.yaml": "text: first\nreplicas: 1\n",
		"templates/web.yaml": `apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}}
data: {text: {{ required "text is needed" .Values.text | quote }}, version: {{ .Chart.Version }}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      containers:
      - {name: web, image: ` + workloadImage + `, args: [serve, ":8080"]}
`,
	})
}

// helmCharts is what a test says to and hears of HelmCharts.
type helmCharts struct {
	t      *testing.T
	client *kube.Client
	events watch.Interface
}

const chartsPath = "/apis/helm.cattle.io/v1/namespaces/kube-system/"

func newHelmCharts(t *testing.T, client *kube.Client) *helmCharts {
	t.Helper()
	events, err := client.CoreV1().Events("kube-system").Watch(within(t, readyLimit), metav1.ListOptions{FieldSelector: "involvedObject.kind=HelmChart"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(events.Stop)
	return &helmCharts{t, client, events}
}

// told waits for an event of a chart, and returns which server it is from.
func (h *helmCharts) told(chart, reason, text string) (server string) {
	h.t.Helper()
	var others []string
	for e := range h.events.ResultChan() {
		event, ok := e.Object.(*corev1.Event)
		if !ok || event.InvolvedObject.Name != chart {
			continue
		}
		if event.Reason == reason && strings.Contains(event.Message, text) {
			return event.Source.Host
		}
		others = append(others, event.Reason+": "+event.Message)
	}
	h.t.Fatalf("not told of chart %s: %s %q; but\n%s", chart, reason, text, strings.Join(others, "\n"))
	return ""
}

// manifest of a HelmChart or a HelmChartConfig, with lines of its spec.
func chartManifest(kind, name string, spec ...string) string {
	return "apiVersion: helm.cattle.io/v1\nkind: " + kind + "\nmetadata: {name: " + name + ", namespace: kube-system}\nspec:\n  " + strings.Join(spec, "\n  ") + "\n"
}

// apply puts an object in force by server-side apply.
func (h *helmCharts) apply(kind, name string, spec ...string) {
	h.t.Helper()
	path := chartsPath + strings.ToLower(kind) + "s/" + name
	err := h.client.CoreV1().RESTClient().Patch(types.ApplyYAMLPatchType).AbsPath(path).Param("fieldManager", "test").Param("force", "true").
		Body([]byte(chartManifest(kind, name, spec...))).Do(within(h.t, changeLimit)).Error()
	if err != nil {
		h.t.Fatal(err)
	}
}

// failed is the condition Failed of a chart.
func (h *helmCharts) failed(name string) string {
	h.t.Helper()
	var chart struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	raw, err := h.client.CoreV1().RESTClient().Get().AbsPath(chartsPath + "helmcharts/" + name).DoRaw(within(h.t, changeLimit))
	if err == nil {
		err = json.Unmarshal(raw, &chart)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	for _, c := range chart.Status.Conditions {
		if c.Type == "Failed" {
			return c.Status
		}
	}
	return ""
}

// text waits until a release's ConfigMap has a text.
func (h *helmCharts) text(name, want string) {
	h.t.Helper()
	ctx := within(h.t, changeLimit)
	changes, err := h.client.CoreV1().ConfigMaps("apps").Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		h.t.Fatal(err)
	}
	defer changes.Stop()
	got := ""
	for e := range changes.ResultChan() { // begins with what is there
		if m, ok := e.Object.(*corev1.ConfigMap); ok && e.Type != watch.Deleted {
			if got = m.Data["text"]; got == want {
				return
			}
		}
	}
	h.t.Fatalf("ConfigMap %s: got the text %q, want %q", name, got, want)
}

// gone waits until nothing is left of a release.
func (h *helmCharts) gone(name string) {
	h.t.Helper()
	ctx := within(h.t, changeLimit)
	changes, err := h.client.CoreV1().ConfigMaps("apps").Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		h.t.Fatal(err)
	}
	defer changes.Stop()
	if _, err := h.client.CoreV1().ConfigMaps("apps").Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		for e := range changes.ResultChan() {
			if e.Type == watch.Deleted {
				return
			}
		}
		h.t.Fatalf("release %s is there", name)
	}
}

// history is what `helm history` reads: the revisions' statuses, from the oldest.
func (h *helmCharts) history(name string) string {
	h.t.Helper()
	all, err := storage.Init(driver.NewSecrets(h.client.CoreV1().Secrets("apps"))).History(name)
	if err != nil && !errors.Is(err, driver.ErrReleaseNotFound) {
		h.t.Fatal(err)
	}
	var releases []*v1.Release
	for _, one := range all {
		releases = append(releases, one.(*v1.Release))
	}
	slices.SortFunc(releases, func(a, b *v1.Release) int { return a.Version - b.Version })
	var parts []string
	for _, r := range releases {
		parts = append(parts, r.Info.Status.String())
	}
	return strings.Join(parts, " ")
}

// historyIs waits until a release's revisions have these statuses.
func (h *helmCharts) historyIs(name, want string) {
	h.t.Helper()
	changes, err := h.client.CoreV1().Secrets("apps").Watch(within(h.t, changeLimit), metav1.ListOptions{LabelSelector: "owner=helm,name=" + name})
	if err != nil {
		h.t.Fatal(err)
	}
	defer changes.Stop()
	got := h.history(name)
	for got != want {
		if _, ok := <-changes.ResultChan(); !ok {
			h.t.Fatalf("history of %s: got %q, want %q", name, got, want)
		}
		got = h.history(name)
	}
}

// pod is the one that serves.
func (h *helmCharts) pod(name string) types.UID {
	h.t.Helper()
	if err := h.client.DeploymentReady(within(h.t, changeLimit), "apps", name); err != nil {
		h.t.Fatal(err)
	}
	pods, err := h.client.CoreV1().Pods("apps").List(within(h.t, changeLimit), metav1.ListOptions{LabelSelector: "app=" + name})
	if err != nil || len(pods.Items) != 1 {
		h.t.Fatalf("pods of %s: %v, %v", name, pods.Items, err)
	}
	return pods.Items[0].UID
}

// A chart in a file of server/manifests: installed, upgraded by a HelmChartConfig, given bad values, mended, disabled; and one
// of an OCI registry, found by the mirror in registries.yaml, with newer versions, deleted.
func TestHelmCharts(t *testing.T) {
	c := newCluster(t)
	client, err := registry.NewClient(registry.ClientOptPlainHTTP(), registry.ClientOptWriter(io.Discard), registry.ClientOptCredentialsFile(filepath.Join(t.TempDir(), "none.json")))
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"1.0.0", "1.1.0", "2.0.0"} {
		if _, err := client.Push(webChart(t, version), fmt.Sprintf("127.0.0.1:%d/keelson/web:%s", the.registry.Port(), version)); err != nil {
			t.Fatal(err)
		}
	}
	content := "chartContent: " + base64.StdEncoding.EncodeToString(webChart(t, "1.0.0"))
	s := c.add("server-1", "server", 1, func(cc *cidata.CloudConfig) {
		cc.WriteFiles = append(cc.WriteFiles, cidata.File{
			Path: "/var/lib/rancher/rke2/server/manifests/web.yaml", Permissions: "0600",
			Content: chartManifest("HelmChart", "web", content, "targetNamespace: apps", "createNamespace: true"),
		})
	})
	c.start(s)
	h := newHelmCharts(t, c.client(s))
	c.whole(h.client)
	h.told("web", "Installed", "release apps/web from spec.chartContent")
	h.text("web", "first")
	serving := h.pod("web")

	h.apply("HelmChartConfig", "web", "valuesContent: '{text: second}'")
	began := time.Now()
	h.text("web", "second")
	t.Logf("a HelmChartConfig was in force after %s", time.Since(began).Round(time.Millisecond))
	h.historyIs("web", "superseded deployed")

	// Values without which it cannot be rendered, values that are none, and values that the API server refuses.
	h.apply("HelmChartConfig", "web", "valuesContent: '{text: null}'")
	h.told("web", "ReleaseFailed", "text is needed")
	h.apply("HelmChartConfig", "web", "valuesContent: '{text: ['")
	h.told("web", "ValuesFailed", "HelmChartConfig kube-system/web: spec.valuesContent")
	if got := h.history("web"); got != "superseded deployed" {
		t.Errorf("history after values that cannot be rendered: got %q", got)
	}
	h.apply("HelmChartConfig", "web", "valuesContent: '{text: third, replicas: many}'")
	h.told("web", "ReleaseFailed", "replicas")
	if got := h.failed("web"); got != "True" {
		t.Errorf("Failed is %q", got)
	}
	if again := h.pod("web"); again != serving {
		t.Errorf("what served has been replaced: pod %s, and %s before", again, serving)
	}
	h.apply("HelmChartConfig", "web", "valuesContent: '{text: fourth}'")
	h.text("web", "fourth")
	h.told("web", "Upgraded", "")
	if got := h.history("web"); !strings.HasSuffix(got, " deployed") || h.pod("web") != serving {
		t.Errorf("mended: history %q", got)
	}

	h.apply("HelmChart", "remote", "chart: oci://docker.io/keelson/web", "version: ^1.0", "targetNamespace: apps", "set: {text: of a registry}")
	h.told("remote", "Installed", "version ^1.0 of docker.io/keelson/web")
	h.text("remote", "of a registry")
	version := func() string {
		m, err := h.client.CoreV1().ConfigMaps("apps").Get(within(t, changeLimit), "remote", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return m.Data["version"]
	}
	if got := version(); got != "1.1.0" {
		t.Errorf("got version %s, want 1.1.0", got)
	}
	if !the.registry.Pulled("keelson/web") {
		t.Error("the mirror was not asked")
	}
	h.apply("HelmChart", "remote", "chart: oci://docker.io/keelson/web", "version: 3.0.0", "targetNamespace: apps", "set: {text: newer}")
	h.told("remote", "ChartFailed", "not found")
	h.apply("HelmChart", "remote", "chart: oci://docker.io/keelson/web", "version: 2.0.0", "targetNamespace: apps", "set: {text: newer}")
	h.text("remote", "newer")
	if got := version(); got != "2.0.0" {
		t.Errorf("got version %s, want 2.0.0", got)
	}
	if err := h.client.CoreV1().RESTClient().Delete().AbsPath(chartsPath + "helmcharts/remote").Do(within(t, changeLimit)).Error(); err != nil {
		t.Fatal(err)
	}
	h.told("remote", "Removed", "")
	h.gone("remote")
	h.historyIs("remote", "")

	if err := s.Shutdown(within(t, stopLimit)); err != nil {
		t.Fatal(err)
	}
	s.seed.RKE2["disable"] = []string{"web"}
	s.seed.WriteFiles = s.seed.WriteFiles[:1]
	doc, err := s.seed.Render()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reseed(cidata.Volume{UserData: doc}); err != nil {
		t.Fatal(err)
	}
	c.start(s)
	h.client = c.client(s)
	c.whole(h.client)
	h.gone("web")
	h.historyIs("web", "")
}

// The server that installs a chart loses its power in the middle of it: a hook has not come to its end. Another one takes the
// release over and brings it to its end.
func TestHelmChartsAfterTheLossOfTheirServer(t *testing.T) {
	c := newHA(t)
	chart := chartOf(t, "web", "1.0.0", map[string]string{
		"templates/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {text: whole}\n",
		"templates/hook.yaml": `apiVersion: batch/v1
kind: Job
metadata: {name: hook, annotations: {helm.sh/hook: pre-install}}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: hook, image: registry.example/never:1}]}}}
`,
	})
	h := newHelmCharts(t, c.clients()[0])
	h.apply("HelmChart", "web", "chartContent: "+base64.StdEncoding.EncodeToString(chart), "targetNamespace: apps", "createNamespace: true", "timeout: 30m")
	holder := h.told("web", "Applying", "")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	jobs, err := h.client.BatchV1().Jobs("apps").Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=hook"})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := <-jobs.ResultChan(); !ok {
		t.Fatal("no hook was begun")
	}
	jobs.Stop()
	if got := h.history("web"); got != "pending-install" {
		t.Fatalf("history: got %q", got)
	}
	var left *member
	for _, s := range c.servers() {
		if s.name != holder {
			left = s
		}
	}
	cut(t, c.all[holder])
	began := time.Now()
	h.client = c.client(left)
	h.text("web", "whole")
	t.Logf("the release was whole %.1f s after its server had lost its power", time.Since(began).Seconds())
	h.historyIs("web", "superseded deployed") // the first has failed, and a revision that works has taken its place
}
