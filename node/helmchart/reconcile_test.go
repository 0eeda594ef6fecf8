package helmchart

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	helmv1 "github.com/k3s-io/helm-controller/pkg/apis/helm.cattle.io/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"keelson/node/chartsource"
	"keelson/node/release"
)

// A chart from its coming to its going.
func TestLife(t *testing.T) {
	c := newCluster(t)
	c.keepRecords("secrets")
	c.chart("chartContent: AAAA", "targetNamespace: apps", "createNamespace: true", "values: {a: 1}")
	c.reconcile("")
	w := c.last()
	if w.Namespace != "apps" || w.Name != "web" || !w.CreateNamespace || string(w.Archive) != "the chart" || !reflect.DeepEqual(w.Values, map[string]any{"a": 1.}) {
		t.Errorf("got %+v", w)
	}
	chart := c.get()
	if !slices.Equal(chart.Finalizers, []string{finalizer}) || chart.Annotations[annotationManagedBy] != managedBy {
		t.Errorf("marks: got %v, %v", chart.Finalizers, chart.Annotations)
	}
	c.wantStatus("JobCreated=True Failed=False")
	c.wantEvent("Normal Applying: Applying release apps/web from spec.chartContent", "Normal Installed: Installed release apps/web from spec.chartContent")

	c.reconcile("") // which is as it should be
	if c.asked() != 1 || len(c.source.asked) != 1 || c.events() != "" {
		t.Error("a release that is as it should be was worked on")
	}
	c.config("values: {a: 2}")
	c.reconcile("")
	if w := c.last(); c.asked() != 2 || !reflect.DeepEqual(w.Values, map[string]any{"a": 2.}) {
		t.Errorf("got %+v", w)
	}
	c.wantEvent("Normal Upgraded: ")

	chart = c.get()
	now := metav1.NewTime(time.Now())
	chart.DeletionTimestamp = &now
	c.putChart(chart)
	c.reconcile("")
	if !slices.Equal(c.helm.removed, []string{"apps/web"}) || len(c.get().Finalizers) != 0 {
		t.Errorf("got removed %q, finalizers %q", c.helm.removed, c.get().Finalizers)
	}
	c.wantEvent("Normal Removed: ")
	c.reconcile("") // without the mark nothing is left to do
	if len(c.helm.removed) != 1 {
		t.Error("it was removed again")
	}
}

// putChart writes a typed HelmChart.
func (c *cluster) putChart(chart *helmv1.HelmChart) {
	c.t.Helper()
	chart.APIVersion, chart.Kind = helmv1.SchemeGroupVersion.String(), "HelmChart"
	object, err := toUnstructured(chart)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.dynamic.Resource(charts()).Namespace(chart.Namespace).Update(c.t.Context(), object, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// Whatever fails is told on the object, with the field that is wrong, and is tried again.
func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name            string
		spec            []string
		spoil           func(*cluster)
		reason, problem string
	}{
		{"values", []string{"chartContent: AAAA", "valuesContent: 'a: ['"}, nil, reasonValues, "HelmChart kube-system/web: spec.valuesContent"},
		{"a Secret with values", []string{"chartContent: AAAA", "valuesSecrets: [{name: s, keys: [k]}]"}, nil, reasonValues, "Secret s does not exist"},
		{"the configuration's", []string{"chartContent: AAAA"}, func(c *cluster) { c.config("valuesContent: 'a: ['") }, reasonValues, "HelmChartConfig kube-system/web"},
		{"a login", []string{"chart: web", "repo: https://x.example", "authSecret: {name: login}"}, nil, reasonChart, "spec.authSecret: Secret login does not exist"},
		{"a registry's login", []string{"chart: oci://x.example/web", "dockerRegistrySecret: {name: login}"}, nil, reasonChart, "spec.dockerRegistrySecret: Secret login does not exist"},
		{"certificates", []string{"chart: web", "repo: https://x.example", "repoCAConfigMap: {name: ca}"}, nil, reasonChart, "spec.repoCAConfigMap: ConfigMap ca does not exist"},
		{"the chart", []string{"chart: web", "repo: https://x.example"}, func(c *cluster) { c.source.err = errors.New("answered 404") }, reasonChart, "answered 404"},
		{"Helm", []string{"chartContent: AAAA"}, func(c *cluster) { c.helm.err = errors.New("text is needed") }, reasonRelease, "text is needed"},
		{"where records are", []string{"chartContent: AAAA", "driver: broken"}, nil, reasonRelease, "no such driver"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake := newCluster(t)
			fake.chart(c.spec...)
			if c.spoil != nil {
				c.spoil(fake)
			}
			if err := fake.reconcile(c.problem); errors.Is(err, errLeftAlone) {
				t.Errorf("it is left alone: %v", err)
			}
			fake.wantStatus("JobCreated=False Failed=True " + c.reason + ": ")
			fake.wantEvent("Warning "+c.reason+": ", c.problem)
			if len(fake.get().Finalizers) != 1 {
				t.Error("it could be deleted before its release is")
			}
		})
	}
}

// What is mended is said to be.
func TestMended(t *testing.T) {
	c := newCluster(t)
	c.chart("chartContent: AAAA")
	c.helm.err = errors.New("no")
	c.reconcile("no")
	c.helm.err = nil
	c.reconcile("")
	c.wantStatus("JobCreated=True Failed=False")
	if len(c.run.failures) != 0 {
		t.Errorf("got %v", c.run.failures)
	}
}

// After backOffLimit tries, and at once by policy abort, a chart waits for somebody to change it.
func TestLeftAlone(t *testing.T) {
	c := newCluster(t)
	c.chart("chartContent: AAAA", "backOffLimit: 2")
	c.helm.err = errors.New("no")
	for range 2 {
		if err := c.reconcile("no"); errors.Is(err, errLeftAlone) {
			t.Fatal("it is left alone too early")
		}
	}
	if err := c.reconcile("backOffLimit is 2"); !errors.Is(err, errLeftAlone) {
		t.Errorf("got %v", err)
	}
	c.wantEvent("spec.backOffLimit is 2", "no")
	c.chart("chartContent: BBBB", "backOffLimit: 2")
	if err := c.reconcile("no"); errors.Is(err, errLeftAlone) {
		t.Error("a change does not count")
	}

	c = newCluster(t)
	c.chart("chartContent: AAAA", "failurePolicy: abort")
	c.helm.err = release.ErrAborted
	if err := c.reconcile("failurePolicy abort"); !errors.Is(err, errLeftAlone) || c.last().Policy != release.Abort {
		t.Errorf("got %v, policy %s", err, c.last().Policy)
	}
}

func TestSettings(t *testing.T) {
	c := newCluster(t)
	c.chart("chartContent: AAAA", "takeOwnership: true", "timeout: 3m0s", "serverSide: auto", "failurePolicy: reinstall")
	c.reconcile("")
	w := c.last()
	if w.Namespace != "kube-system" || !w.TakeOwnership || w.Timeout != 3*time.Minute || w.ServerSide != "auto" || w.Policy != release.Reinstall || w.ForceConflicts {
		t.Errorf("got %+v", w)
	}
	c.config("forceConflicts: true", `serverSide: "false"`, "failurePolicy: retry")
	c.reconcile("")
	if w = c.last(); !w.ForceConflicts || w.ServerSide != "false" || w.Policy != release.Retry || !w.TakeOwnership {
		t.Errorf("with configuration: got %+v", w)
	}
}

// What a chart is fetched with is handed to its source.
func TestRequest(t *testing.T) {
	c := newCluster(t)
	c.put("apiVersion: v1\nkind: Secret\nmetadata: {name: login}\ndata: {username: bWU=, password: cHc=}\n")
	c.put("apiVersion: v1\nkind: Secret\nmetadata: {name: docker}\ndata: {.dockerconfigjson: e30=}\n")
	c.put("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca}\ndata: {b: two, a: one}\n")
	c.chart("chart: web", "version: ~1.0", "repo: https://x.example", "repoCA: zero", "repoCAConfigMap: {name: ca}", "authSecret: {name: login}",
		"dockerRegistrySecret: {name: docker}", "authPassCredentials: true", "insecureSkipTLSVerify: true", "plainHTTP: true")
	c.reconcile("")
	want := chartsource.Request{
		Chart: "web", Version: "~1.0", Repo: "https://x.example", CA: []byte("zero\none\ntwo"), Username: "me", Password: "pw",
		DockerConfig: []byte("{}"), PassCredentials: true, SkipVerify: true, PlainHTTP: true,
	}
	if got := c.source.asked[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Fields about the job that there is none of are told of, and nothing else comes of them.
func TestIgnored(t *testing.T) {
	c := newCluster(t)
	c.chart("chartContent: AAAA", "helmVersion: v2", "jobImage: x", "securityContext: {runAsUser: 1}", "podSecurityContext: {}", "bootstrap: true")
	c.reconcile("")
	c.wantEvent("spec.helmVersion is ignored", "spec.jobImage is ignored", "spec.securityContext is ignored", "spec.podSecurityContext is ignored", "Installed")
}

func TestOthersCharts(t *testing.T) {
	for name, annotation := range map[string]string{"unmanaged": annotationUnmanaged + `: "true"`, "of another": annotationManagedBy + ": somebody"} {
		c := newCluster(t)
		const text = "apiVersion: helm.cattle.io/v1\nkind: HelmChart\nmetadata: {name: web, uid: u, annotations: {%s}}\nspec: {chartContent: AAAA}\n"
		c.put(strings.Replace(text, "%s", annotation, 1))
		c.reconcile("")
		if c.asked() != 0 || len(c.get().Finalizers) != 0 || len(c.get().Status.Conditions) != 0 {
			t.Errorf("%s: it was worked on", name)
		}
	}
	// One that was let go can be deleted, and its release stays.
	c := newCluster(t)
	c.put("apiVersion: helm.cattle.io/v1\nkind: HelmChart\nmetadata: {name: web, uid: u, annotations: {" + annotationUnmanaged +
		`: ""}, deletionTimestamp: "2026-01-01T00:00:00Z", finalizers: [other, ` + finalizer + "]}\nspec: {chartContent: AAAA}\n")
	c.reconcile("")
	if got := c.get().Finalizers; !slices.Equal(got, []string{"other"}) || len(c.helm.removed) != 0 {
		t.Errorf("got finalizers %q, removed %q", got, c.helm.removed)
	}
}

// A release that cannot be uninstalled keeps its HelmChart.
func TestRemoveFails(t *testing.T) {
	c := newCluster(t)
	c.put("apiVersion: helm.cattle.io/v1\nkind: HelmChart\nmetadata: {name: web, uid: u, deletionTimestamp: \"2026-01-01T00:00:00Z\", finalizers: [" + finalizer + "]}\nspec: {chartContent: AAAA}\n")
	c.helm.err = errors.New("a hook says no")
	c.reconcile("a hook says no")
	c.wantEvent("Warning RemoveFailed: a hook says no")
	if len(c.get().Finalizers) != 1 {
		t.Error("it was let go")
	}
}

// Releases on record are told by their labels: RKE2's own, of an older hash, or not deployed, are upgraded.
func TestRecords(t *testing.T) {
	for name, resource := range map[string]string{"": "secrets", "driver: configmap": "configmaps"} {
		c := newCluster(t)
		c.keepRecords(resource)
		spec := []string{"chartContent: AAAA"}
		if name != "" {
			spec = append(spec, name)
		}
		c.chart(spec...)
		c.reconcile("")
		c.reconcile("")
		if c.asked() != 1 {
			t.Errorf("%s: asked %d times", resource, c.asked())
		}
		hash := c.last().Hash
		c.meta(resource, "kube-system", "sh.helm.release.v1.web.v10", map[string]string{"owner": "helm", "name": "web", "version": "10", "status": "failed", release.LabelHash: hash}, nil)
		c.reconcile("")
		if c.asked() != 2 {
			t.Errorf("%s: a failed revision was taken for a deployed one", resource)
		}
	}
}

// What RKE2 made for a chart goes, and what only has such a name stays.
func TestRetire(t *testing.T) {
	c := newCluster(t)
	mine := map[string]string{ownerName: "web"}
	c.meta("jobs", "kube-system", "helm-install-web", nil, mine)
	c.meta("clusterrolebindings", "", "helm-kube-system-web", nil, mine)
	c.meta("serviceaccounts", "kube-system", "helm-web", nil, map[string]string{ownerName: "other"})
	c.put("apiVersion: helm.cattle.io/v1\nkind: HelmChart\nmetadata: {name: web, uid: u}\nspec: {chartContent: AAAA}\nstatus: {jobName: helm-install-web}\n")
	c.reconcile("")
	jobs := schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "jobs"}
	bindings := schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"}
	accounts := schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
	if c.hasMeta(jobs, "kube-system", "helm-install-web") || c.hasMeta(bindings, "", "helm-kube-system-web") || !c.hasMeta(accounts, "kube-system", "helm-web") {
		t.Error("what RKE2 made is there, or what is another's is not")
	}
	if c.get().Status.JobName != "" {
		t.Errorf("got the job %s", c.get().Status.JobName)
	}
}

// What is cut short by this server's end says nothing about the chart.
func TestCutShort(t *testing.T) {
	c := newCluster(t)
	c.chart("chartContent: AAAA")
	ctx, cancel := context.WithCancel(t.Context())
	c.helm.err = errors.New("cut")
	c.helm.done = make(chan string, 1)
	c.run.Releases = func(string, helmv1.HelmDriver) (Releases, error) {
		cancel()
		return inNamespace{c.helm, "kube-system"}, nil
	}
	if _, err := c.run.reconcile(ctx, web()); err == nil {
		t.Error("no error")
	}
	if told := c.events(); c.status() != "" || strings.Contains(told, "Warning") {
		t.Errorf("it is told: %s %s", c.status(), told)
	}
}
