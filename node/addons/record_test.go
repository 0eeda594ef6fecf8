package addons

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// An Addon tells file, checksum and kinds, as RKE2's do; of a file that fails, the checksum of what was applied whole last,
// and the kinds of then and now.
func TestAddonObject(t *testing.T) {
	h := newHarness(t)
	first := configMap("one") + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: ns}\n"
	h.write("sub/a.yaml", first)
	h.once()
	const configMaps, both = "/v1, Kind=ConfigMap", "/v1, Kind=ConfigMap;/v1, Kind=Namespace"
	if got, want := h.cluster.addon("a"), []string{"a.yaml", sumOf(first), both}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	second := configMap("two")
	h.write("sub/a.yaml", second)
	h.cluster.refuse = "two"
	h.once()
	if got, want := h.cluster.addon("a"), []string{"a.yaml", sumOf(first), both}; !slices.Equal(got, want) {
		t.Errorf("after a failure: got %q, want %q", got, want)
	}
	h.cluster.refuse = ""
	h.once()
	if got, want := h.cluster.addon("a"), []string{"a.yaml", sumOf(second), configMaps}; !slices.Equal(got, want) {
		t.Errorf("mended: got %q, want %q", got, want)
	}
	h.want(cm + "two")
	h.cfg.Disable = []string{"a"}
	h.once()
	if got := h.cluster.addon("a"); got != nil {
		t.Errorf("disabled: got %q", got)
	}
}

// Objects that an RKE2 server left, of kinds that it wrote down and the file does not have any more, go too.
func TestTakesOverFromRKE2(t *testing.T) {
	h := newHarness(t)
	marks := map[string]any{"labels": map[string]any{labelHash: ownerHash("a")}, "annotations": map[string]any{annotationName: "a"}, "name": "w", "namespace": "default"}
	h.kinds.widgets = func() bool { return true }
	h.kinds.Reset()
	const old = "/apis/x.io/v1/namespaces/default/widgets/w"
	h.cluster.objects[old] = map[string]any{"apiVersion": "x.io/v1", "kind": "Widget", "metadata": marks}
	h.cluster.objects[addonsPath+"a"] = map[string]any{"apiVersion": "k3s.cattle.io/v1", "kind": "Addon",
		"metadata": map[string]any{"name": "a", "uid": "u", "annotations": map[string]any{annotationKinds: "x.io/v1, Kind=Widget"}},
		"spec":     map[string]any{"source": "/elsewhere/a.yaml", "checksum": "0123"}}
	h.write("a.yaml", configMap("one"))
	h.once()
	h.want(cm + "one")
}

// The kind Addon is served a moment after it is defined: what files hold is applied before, and written down then.
func TestAddonsComeLater(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", configMap("one"))
	h.write("b.yaml", configMap("two"))
	h.cluster.unserved = 3
	c := h.controller()
	if c.pass(t.Context()) {
		t.Error("the records of what was applied are not written, and nothing is left to do")
	}
	h.want(cm+"one", cm+"two")
	for range 2 {
		if e := h.event(); e.Err != nil {
			t.Errorf("got event %+v", e)
		}
	}
	for !c.pass(t.Context()) {
		if t.Context().Err() != nil {
			t.Fatal("the records are never written")
		}
	}
	for _, name := range []string{"a", "b"} {
		if got := h.cluster.addon(name); len(got) == 0 || got[1] == "" {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// A record that was there all along, but could not be read at first, is added to, and what left its file is pruned after all.
func TestRecordIsFoundLater(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", configMap("one", "two"))
	h.once()
	h.write("a.yaml", configMap("two"))
	h.cluster.unserved = 1
	c := h.controller()
	if c.pass(t.Context()) {
		t.Error("what left the file was not pruned, and nothing is left to do")
	}
	if !c.pass(t.Context()) {
		t.Error("something is left to do")
	}
	h.want(cm + "two")
	if got := h.cluster.addon("a"); got[1] != sumOf(configMap("two")) {
		t.Errorf("got %q", got)
	}
}

// Events on the Addon say what was done and what failed, with file, document and line.
func TestEvents(t *testing.T) {
	h := newHarness(t)
	client, err := typedcorev1.NewForConfigAndClient(&rest.Config{Host: h.cluster.URL}, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	h.cfg.Events, h.cfg.Node = client, "cp-1"
	h.write("a.yaml", configMap("one"))
	h.write("broken.yaml", configMap("two")+"---\na: [\n")
	h.write("unknown.yaml", widget)
	h.write("large.yaml", "")
	if err := os.Truncate(filepath.Join(h.dir, "large.yaml"), maxSize+1); err != nil {
		t.Fatal(err)
	}
	c := h.controller()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	want := map[string]string{
		"a Normal ApplyingManifest":           "a.yaml",
		"a Normal AppliedManifest":            "a.yaml",
		"broken Warning ParseManifestFailed":  "broken.yaml: document 2 (line 7)",
		"unknown Warning ApplyManifestFailed": "unknown.yaml: document 1 (line 1): Widget w",
		"large Warning ReadManifestFailed":    "the most is 33554432",
	}
	deadline := time.Now().Add(30 * time.Second)
	for len(want) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("not told: %v", want)
		}
		<-h.events
		h.cluster.mu.Lock()
		for _, event := range h.cluster.events {
			on := event["involvedObject"].(map[string]any)
			key := strings.Join([]string{on["name"].(string), event["type"].(string), event["reason"].(string)}, " ")
			text := event["message"].(string)
			if part, ok := want[key]; ok && strings.Contains(text, part) && on["kind"] == "Addon" && on["uid"] == "u" && event["source"].(map[string]any)["host"] == "cp-1" {
				delete(want, key)
			}
			if len(text) > most {
				t.Errorf("a message of %d bytes", len(text))
			}
		}
		h.cluster.mu.Unlock()
	}
	cancel()
	for len(h.events) > 0 {
		<-h.events
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestLongNotesAreCut(t *testing.T) {
	var r report
	r.note("Warning", reasonApply, strings.Repeat("x", 5000))
	if got := r.notes[0].text; len(got) != most || !strings.HasSuffix(got, "...") {
		t.Errorf("got %d bytes", len(got))
	}
}

// The definition is one that a record's fields fit.
func TestDefinition(t *testing.T) {
	var crd unstructured.Unstructured
	if err := yaml.UnmarshalStrict(definition, &crd.Object); err != nil {
		t.Fatal(err)
	}
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if err != nil || len(versions) != 1 || crd.GetName() != "addons.k3s.cattle.io" {
		t.Fatalf("got %v, %v", versions, err)
	}
	fields, _, _ := unstructured.NestedMap(versions[0].(map[string]any), "schema", "openAPIV3Schema", "properties", "spec", "properties")
	if len(fields) != 2 || fields["source"] == nil || fields["checksum"] == nil {
		t.Errorf("got %v", fields)
	}
}

func TestParseKind(t *testing.T) {
	for text, want := range map[string]schema.GroupVersionKind{
		"apps/v1, Kind=Deployment": {Group: "apps", Version: "v1", Kind: "Deployment"},
		"/v1, Kind=ConfigMap":      {Version: "v1", Kind: "ConfigMap"},
		"":                         {}, "apps/v1": {}, ", Kind=X": {}, "a/b/c, Kind=X": {}, "v1, Kind=": {},
	} {
		got, ok := parseKind(text)
		if got != want || ok != (want != schema.GroupVersionKind{}) {
			t.Errorf("%q: got %v, %v", text, got, ok)
		}
		if ok && got.String() != text {
			t.Errorf("%q is printed as %q", text, got)
		}
	}
}

// What is read of a cluster's annotations is a kind that prints as it was read, or nothing.
func FuzzParseKind(f *testing.F) {
	f.Add("apps/v1, Kind=Deployment")
	f.Add("/v1, Kind=ConfigMap")
	f.Fuzz(func(t *testing.T, text string) {
		if kind, ok := parseKind(text); ok && (kind.Version == "" || kind.Kind == "") {
			t.Errorf("%q: got %v", text, kind)
		}
	})
}
