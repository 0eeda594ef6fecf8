package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/kube"
	"helm.sh/helm/v4/pkg/kube/fake"
	releasecommon "helm.sh/helm/v4/pkg/release/common"
	v1 "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage/driver"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/cli-runtime/pkg/resource"
	restfake "k8s.io/client-go/rest/fake"
)

// archive packs a chart of files, as helm package does.
func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, name := range []string{"Chart.yaml", "values.yaml", "values.schema.json", "templates/a.yaml"} {
		content, ok := files[name]
		if !ok {
			continue
		}
		if err := w.WriteHeader(&tar.Header{Name: "web/" + name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func web(t *testing.T) []byte {
	return archive(t, map[string]string{
		"Chart.yaml":       "apiVersion: v2\nname: web\nversion: 1.2.3\n",
		"values.yaml":      "text: hello\n",
		"templates/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {text: {{ required \"text is needed\" .Values.text | quote }}}\n",
	})
}

// api is Helm's own fake of a cluster, which counts what is asked of it.
type api struct {
	*fake.FailingKubeClient
	created, updated, deleted int
}

// Build makes resources of a manifest as Helm's client does, of a cluster that has none of them yet.
func (a *api) Build(manifest io.Reader, _ bool) (kube.ResourceList, error) {
	var all kube.ResourceList
	for decoder := utilyaml.NewYAMLOrJSONDecoder(manifest, 4096); ; {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(object); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		if len(object.Object) == 0 {
			continue
		}
		gvk := object.GroupVersionKind()
		all = append(all, &resource.Info{
			Name: object.GetName(), Namespace: "default", Object: object,
			Mapping: &meta.RESTMapping{GroupVersionKind: gvk, Resource: gvk.GroupVersion().WithResource("configmaps"), Scope: meta.RESTScopeNamespace},
			Client: &restfake.RESTClient{NegotiatedSerializer: resource.UnstructuredPlusDefaultContentConfig().NegotiatedSerializer, Client: restfake.CreateHTTPClient(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: http.StatusNotFound, Header: http.Header{"Content-Type": {"application/json"}},
					Body: io.NopCloser(strings.NewReader(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`))}, nil
			})},
		})
	}
}

func (a *api) Create(r kube.ResourceList, o ...kube.ClientCreateOption) (*kube.Result, error) {
	a.created++
	return a.FailingKubeClient.Create(r, o...)
}

func (a *api) Update(old, r kube.ResourceList, o ...kube.ClientUpdateOption) (*kube.Result, error) {
	a.updated++
	return a.FailingKubeClient.Update(old, r, o...)
}

func (a *api) Delete(r kube.ResourceList, p metav1.DeletionPropagation) (*kube.Result, []error) {
	a.deleted++
	return a.FailingKubeClient.Delete(r, p)
}

type bench struct {
	*Releases
	t   *testing.T
	api *api
}

func newBench(t *testing.T) *bench {
	t.Helper()
	records := driver.NewMemory()
	records.SetNamespace("default")
	b := &bench{t: t, api: &api{FailingKubeClient: &fake.FailingKubeClient{PrintingKubeClient: fake.PrintingKubeClient{Out: io.Discard, LogOutput: io.Discard}}}}
	var err error
	if b.Releases, err = New(Config{Records: records, Kube: b.api, Capabilities: common.DefaultCapabilities, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) wanted(hash string, change func(*Wanted)) Wanted {
	w := Wanted{Name: "web", Namespace: "default", Archive: web(b.t), Values: map[string]any{"text": hash}, Hash: hash}
	if change != nil {
		change(&w)
	}
	return w
}

// ensure wants an outcome, or an error with that text.
func (b *bench) ensure(w Wanted, want Done, problem string) {
	b.t.Helper()
	got, err := b.Ensure(b.t.Context(), w)
	if got != want || (err != nil) != (problem != "") || err != nil && !strings.Contains(err.Error(), problem) {
		b.t.Fatalf("got %s, %v; want %s, %q", got, err, want, problem)
	}
}

// history is the statuses of all revisions that are kept, from the oldest, and the newest's hash.
func (b *bench) history() (text string) {
	b.t.Helper()
	all, err := b.config.Releases.History("web")
	if errors.Is(err, driver.ErrReleaseNotFound) {
		return ""
	}
	if err != nil {
		b.t.Fatal(err)
	}
	byVersion := map[int]*v1.Release{}
	for _, one := range all {
		byVersion[one.(*v1.Release).Version] = one.(*v1.Release)
	}
	var parts []string
	for version := range 100 {
		if r := byVersion[version]; r != nil {
			parts = append(parts, r.Info.Status.String()+"="+r.Labels[LabelHash])
		}
	}
	return strings.Join(parts, " ")
}

func (b *bench) want(history string) {
	b.t.Helper()
	if got := b.history(); got != history {
		b.t.Errorf("history: got %q, want %q", got, history)
	}
}

// set changes the newest revision's status, as a server that died would leave it.
func (b *bench) set(status releasecommon.Status) {
	b.t.Helper()
	last, err := b.last("web")
	if err != nil {
		b.t.Fatal(err)
	}
	last.SetStatus(status, "")
	if err := b.config.Releases.Update(last); err != nil {
		b.t.Fatal(err)
	}
}

func TestLife(t *testing.T) {
	b := newBench(t)
	b.ensure(b.wanted("one", nil), Installed, "")
	b.ensure(b.wanted("one", nil), Nothing, "")
	if b.api.updated != 0 {
		t.Error("an unchanged release was upgraded")
	}
	b.ensure(b.wanted("two", nil), Upgraded, "")
	b.want("superseded=one deployed=two")
	if err := b.Remove(t.Context(), "web", 0); err != nil {
		t.Fatal(err)
	}
	b.want("")
	if err := b.Remove(t.Context(), "web", 0); err != nil {
		t.Errorf("what is not there: %v", err)
	}
	b.ensure(b.wanted("two", nil), Installed, "")
}

// What worked is never uninstalled, whatever the policy; what never did is, by policy Reinstall alone.
func TestFailures(t *testing.T) {
	broken := errors.New("the API server says no")
	for _, c := range []struct {
		policy        Policy
		first, second Done   // what mends a failed installation, and a failed upgrade
		problem       string // of both, where nothing is done
	}{
		{Retry, Upgraded, Upgraded, ""},
		{"", Upgraded, Upgraded, ""},
		{Reinstall, Reinstalled, Upgraded, ""},
		{Abort, Nothing, Nothing, "failurePolicy abort"},
	} {
		t.Run(string(c.policy), func(t *testing.T) {
			policy := func(w *Wanted) { w.Policy = c.policy }
			b := newBench(t)
			b.api.CreateError = broken
			b.ensure(b.wanted("one", policy), Nothing, broken.Error())
			b.want("failed=one")
			b.api.CreateError = nil
			b.ensure(b.wanted("one", policy), c.first, c.problem)
			if c.problem == "" {
				b.ensure(b.wanted("one", policy), Nothing, "")
			}

			b = newBench(t)
			b.ensure(b.wanted("one", policy), Installed, "")
			b.api.UpdateError = broken
			b.ensure(b.wanted("two", policy), Nothing, broken.Error())
			b.want("deployed=one failed=two")
			b.api.UpdateError = nil
			deleted := b.api.deleted
			b.ensure(b.wanted("two", policy), c.second, c.problem)
			if b.api.deleted != deleted {
				t.Error("something of a release that worked was deleted")
			}
		})
	}
}

// Values that the chart cannot be rendered with, or that its schema refuses, leave the release as it is.
func TestBadValues(t *testing.T) {
	b := newBench(t)
	b.ensure(b.wanted("one", nil), Installed, "")
	b.ensure(b.wanted("two", func(w *Wanted) { w.Values = map[string]any{"text": nil} }), Nothing, "text is needed")
	b.ensure(b.wanted("three", func(w *Wanted) {
		w.Archive = archive(t, map[string]string{
			"Chart.yaml":         "apiVersion: v2\nname: web\nversion: 1.2.3\n",
			"values.schema.json": `{"properties": {"text": {"type": "integer"}}}`,
		})
	}), Nothing, "text")
	b.want("deployed=one")
	b.ensure(b.wanted("one", nil), Nothing, "")
}

// What a server left half way is ended by the next, whatever it was.
func TestLeftHalfWay(t *testing.T) {
	for status, want := range map[releasecommon.Status]Done{
		releasecommon.StatusPendingInstall: Upgraded, releasecommon.StatusPendingUpgrade: Upgraded, releasecommon.StatusPendingRollback: Upgraded,
		releasecommon.StatusUninstalling: Upgraded, releasecommon.StatusUnknown: Upgraded, releasecommon.StatusSuperseded: Upgraded,
		releasecommon.StatusUninstalled: Installed,
	} {
		t.Run(status.String(), func(t *testing.T) {
			b := newBench(t)
			b.ensure(b.wanted("one", nil), Installed, "")
			b.set(status)
			b.ensure(b.wanted("one", nil), want, "")
			if got := b.history(); !strings.HasSuffix(got, "deployed=one") {
				t.Errorf("history: got %q", got)
			}
		})
	}
	b := newBench(t)
	b.ensure(b.wanted("one", nil), Installed, "")
	b.ensure(b.wanted("two", nil), Upgraded, "")
	b.set(releasecommon.StatusPendingUpgrade)
	b.ensure(b.wanted("two", func(w *Wanted) { w.Policy = Reinstall }), Upgraded, "")
	if got := b.history(); !strings.HasPrefix(got, "superseded=one ") || !strings.HasSuffix(got, " deployed=two") {
		t.Errorf("history: got %q", got)
	}
}

func TestBadCharts(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		name, want string
		archive    []byte
	}{
		{"no archive", "read chart", []byte("hello")},
		{"empty", "read chart", nil},
		{"no Chart.yaml", "Chart.yaml", archive(t, map[string]string{"values.yaml": "a: 1\n"})},
		{"a library", "is of type library", archive(t, map[string]string{"Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.2.3\ntype: library\n"})},
		{"a dependency that is not packed", "redis", archive(t, map[string]string{"Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.2.3\ndependencies: [{name: redis, version: 1.0.0, repository: 'https://x.example'}]\n"})},
		{"a template that is none", "parse error", archive(t, map[string]string{"Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.2.3\n", "templates/a.yaml": "{{ if"})},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.ensure(b.wanted("one", func(w *Wanted) { w.Archive = c.archive }), Nothing, c.want)
			b.want("")
		})
	}
}

// History does not grow without bound.
func TestHistoryIsBounded(t *testing.T) {
	b := newBench(t)
	b.ensure(b.wanted("h", nil), Installed, "")
	for i := range 2 * maxHistory {
		b.ensure(b.wanted("h"+string(rune('a'+i)), nil), Upgraded, "")
	}
	if got := strings.Count(b.history(), "="); got != maxHistory {
		t.Errorf("got %d revisions, want %d", got, maxHistory)
	}
}

// A server that is told to stop begins with nothing.
func TestStopped(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Ensure(ctx, b.wanted("one", nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := b.Remove(ctx, "web", 0); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b.want("")
}

func TestNewWantsAll(t *testing.T) {
	whole := Config{Records: driver.NewMemory(), Kube: newBench(t).api, Capabilities: common.DefaultCapabilities, Log: slog.New(slog.DiscardHandler)}
	for name, drop := range map[string]func(*Config){
		"records": func(c *Config) { c.Records = nil }, "client": func(c *Config) { c.Kube = nil },
		"capabilities": func(c *Config) { c.Capabilities = nil }, "log": func(c *Config) { c.Log = nil },
	} {
		c := whole
		drop(&c)
		if _, err := New(c); err == nil {
			t.Errorf("without %s: no error", name)
		}
	}
}
