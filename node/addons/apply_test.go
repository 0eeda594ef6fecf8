package addons

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// controller is one that runs on, for tests of several passes.
func (h *harness) controller() *Controller {
	h.t.Helper()
	c, err := New(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.watcher.Close() })
	return c
}

// asked returns the requests since the last call.
func (c *cluster) asked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.requests
	c.requests = nil
	return all
}

func (h *harness) event() Event {
	h.t.Helper()
	select {
	case e := <-h.events:
		return e
	default:
		h.t.Fatal("nothing was observed")
		return Event{}
	}
}

// TestUnchangedFilesAreLeftAlone: a pass over what is applied asks nothing of the API server.
func TestUnchangedFilesAreLeftAlone(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", configMap("one"))
	h.write("b.yaml", configMap("two"))
	c := h.controller()
	c.pass(t.Context())
	h.cluster.asked()
	if !c.pass(t.Context()) {
		t.Error("something is left to do")
	}
	if got := h.cluster.asked(); len(got) != 0 {
		t.Errorf("asked %q", got)
	}
	h.write("b.yaml", configMap("two")+"# a comment\n")
	c.pass(t.Context())
	want := []string{"GET " + addonsPath + "b", "PATCH " + cm + "two", "GET /api/v1/configmaps", "PATCH " + addonsPath + "b"}
	if got := h.cluster.asked(); !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
}

// TestFileThatComesBackIsAppliedAgain, though its content is what it was: whoever removes objects by hand and copies
// the manifest anew wants them again.
func TestFileThatComesBackIsAppliedAgain(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", configMap("one"))
	c := h.controller()
	c.pass(t.Context())
	if err := os.Remove(filepath.Join(h.dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	c.pass(t.Context())
	h.want(cm + "one")
	delete(h.cluster.objects, cm+"one")
	h.write("a.yaml", configMap("one"))
	c.pass(t.Context())
	h.want(cm + "one")
}

// TestNamesAndLinks is which files are add-ons, and under what name.
func TestNamesAndLinks(t *testing.T) {
	h := newHarness(t)
	outside := t.TempDir()
	for name, content := range map[string]string{"linked.yaml": configMap("linked"), "deep/inner.yaml": configMap("inner")} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(outside, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(outside, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"static": outside, "one.yaml": filepath.Join(outside, "linked.yaml"), "dangling.yaml": outside + "/none"} {
		if err := os.Symlink(target, filepath.Join(h.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	h.write("chart.v2.yaml", configMap("dotted"))
	h.write("upper.YAML", configMap("upper"))
	h.write("json.json", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"json","namespace":"kube-system"}}`)
	h.write("list.yml", configMap("yml"))
	h.write(".kept/hidden.yaml", configMap("hidden"))
	h.write("notes.txt", configMap("text"))
	if err := os.Symlink(outside, filepath.Join(h.dir, "static-below")); err != nil {
		t.Fatal(err)
	}
	files, err := h.controller().list()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for addon, file := range files {
		got[addon], _ = filepath.Rel(h.dir, file)
	}
	want := map[string]string{
		"chart": "chart.v2.yaml", "json": "json.json", "list": "list.yml", "one": "one.yaml",
		"linked": "static/linked.yaml", "inner": "static/deep/inner.yaml",
	}
	for addon, file := range want {
		if got[addon] != file {
			t.Errorf("%s: got %q, want %q", addon, got[addon], file)
		}
		delete(got, addon)
	}
	if len(got) != 0 {
		t.Errorf("more than wanted: %v", got)
	}
}

// TestTwoFilesOfOneName: the first in the order of paths is the add-on; the other must not undo it at each pass.
func TestTwoFilesOfOneName(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", configMap("first"))
	h.write("sub/a.yaml", configMap("second"))
	for range 2 {
		h.once()
		h.want(cm + "first")
	}
}

// TestScopes: objects go where their kind belongs; a namespace in a manifest of such a kind is a slip that kubectl forgives too.
func TestScopes(t *testing.T) {
	for _, c := range []struct{ name, manifest, want string }{
		{"default namespace", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n", "/api/v1/namespaces/default/configmaps/x"},
		{"own namespace", configMap("x"), cm + "x"},
		{"cluster", "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n", "/api/v1/namespaces/x"},
		{"cluster, with a namespace written", "apiVersion: v1\nkind: Namespace\nmetadata: {name: x, namespace: y}\n", "/api/v1/namespaces/x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t)
			h.write("a.yaml", c.manifest)
			h.once()
			h.want(c.want)
			// What was applied there is found there again.
			h.write("a.yaml", configMap("other"))
			h.once()
			h.want(cm + "other")
		})
	}
}

// TestOwnMarksWin: a manifest that was copied out of a cluster has another owner's marks in it.
func TestOwnMarksWin(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n  namespace: kube-system\n  labels: {"+labelHash+": old, keep: me}\n  annotations: {"+annotationName+": old, keep: me}\n")
	h.once()
	meta := h.cluster.objects[cm+"x"]["metadata"].(map[string]any)
	labels, annotations := meta["labels"].(map[string]any), meta["annotations"].(map[string]any)
	if labels[labelHash] != ownerHash("a") || labels["keep"] != "me" || annotations[annotationName] != "a" || annotations["keep"] != "me" {
		t.Errorf("got labels %v, annotations %v", labels, annotations)
	}
	if annotations[annotationGVK] != "k3s.cattle.io/v1, Kind=Addon" || annotations[annotationSpace] != "kube-system" {
		t.Errorf("got annotations %v", annotations)
	}
}

// TestOwnerHash: objects in clusters have this mark, in RKE2's as in ours; with another text a new version would take
// them for somebody else's and prune nothing any more.
func TestOwnerHash(t *testing.T) {
	if got, want := ownerHash("rke2-coredns"), "f68201c46c5ebe4d2b9cec694e95f38f1e42f2d0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if ownerHash("a") == ownerHash("b") {
		t.Error("two add-ons have one hash")
	}
}

// TestMovedObject: an object that goes from one file to another is the new one's, and must outlive the old file's
// pruning whichever is applied first.
func TestMovedObject(t *testing.T) {
	for _, c := range []struct{ name, from, to string }{
		{"to a later name", "a.yaml", "b.yaml"},
		{"to an earlier name", "b.yaml", "a.yaml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t)
			h.write(c.from, configMap("stays", "moves"))
			h.write(c.to, configMap("other"))
			h.once()
			h.write(c.from, configMap("stays"))
			h.write(c.to, configMap("other", "moves"))
			h.once()
			h.once() // the next start
			h.want(cm+"moves", cm+"other", cm+"stays")
		})
	}
}

// TestPruneFailures: what could not be removed is tried again at the next pass and the next start.
func TestPruneFailures(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", configMap("one", "two"))
	h.once()
	h.event()
	h.write("a.yaml", configMap("one"))
	h.cluster.refuse = "two"
	if h.once() {
		t.Error("a failed removal was taken for success")
	}
	if e := h.event(); e.Err == nil || !strings.Contains(e.Err.Error(), "remove ConfigMap kube-system/two") {
		t.Errorf("got event %+v", e)
	}
	h.cluster.refuse = ""
	h.once()
	h.want(cm + "one")
}

// TestPruneOfWhatIsGone: objects and kinds that somebody else removed are no failure.
func TestPruneOfWhatIsGone(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", configMap("gone", "one"))
	h.once()
	h.cluster.objects[addonsPath+"a"]["metadata"].(map[string]any)["annotations"] = map[string]any{
		annotationKinds: "/v1, Kind=ConfigMap;x.io/v1, Kind=Widget;nonsense;, Kind=;a/b/c, Kind=d",
	}
	delete(h.cluster.objects, cm+"gone")
	h.write("a.yaml", configMap("one"))
	if !h.once() {
		t.Error("something is left to do")
	}
	h.want(cm + "one")
}

// TestRecordThatCannotBeRead: nothing is applied or removed by a server that cannot know what there was before.
func TestRecordThatCannotBeRead(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", configMap("one", "two"))
	h.once()
	h.event()
	before := h.cluster.addon("a")
	h.cluster.refuse = "/addons/a"
	h.write("a.yaml", configMap("two", "three"))
	if h.once() {
		t.Error("a failure was taken for success")
	}
	h.want(cm+"one", cm+"two")
	if after := h.cluster.addon("a"); !slices.Equal(before, after) {
		t.Errorf("got %q, want %q", after, before)
	}
	h.cluster.refuse = ""
	h.once()
	h.want(cm+"three", cm+"two")
}

// TestDisabledKeepsWhatIsNotItsOwn: objects that another owner has taken, and files seen through a link.
func TestDisabledKeepsWhatIsNotItsOwn(t *testing.T) {
	h := newHarness(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "rke2-a.yaml"), []byte(configMap("one", "two")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(h.dir, "static")); err != nil {
		t.Fatal(err)
	}
	h.once()
	h.event()
	h.cluster.objects[cm+"two"]["metadata"].(map[string]any)["labels"] = map[string]any{labelHash: ownerHash("b")}
	h.cfg.Disable = []string{"rke2-a"}
	if !h.once() {
		t.Error("something is left to do")
	}
	h.want(cm + "two")
	if e := h.event(); !e.Removed || e.Addon != "rke2-a" || e.Err != nil {
		t.Errorf("got event %+v", e)
	}
	if _, err := os.Stat(filepath.Join(outside, "rke2-a.yaml")); err != nil {
		t.Errorf("a file of somebody else's folder: %v", err)
	}
}

// TestDisableGoesBackwards: what came last goes first, so that a namespace goes after what is in it.
func TestDisableGoesBackwards(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: ns}\n---\n"+configMap("one", "two"))
	h.once()
	h.cluster.asked()
	h.cfg.Disable = []string{"a"}
	h.once()
	var deleted []string
	for _, request := range h.cluster.asked() {
		if path, ok := strings.CutPrefix(request, "DELETE "); ok && !strings.HasPrefix(path, addonsPath) {
			deleted = append(deleted, path)
		}
	}
	if want := []string{cm + "two", cm + "one", "/api/v1/namespaces/ns"}; !slices.Equal(deleted, want) {
		t.Errorf("got %q, want %q", deleted, want)
	}
}

// TestDisableRetriesWhatFails, also where the file is gone already.
func TestDisableRetriesWhatFails(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", configMap("one"))
	h.once()
	if err := os.Remove(filepath.Join(h.dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	h.cfg.Disable = []string{"a"}
	c := h.controller()
	h.cluster.refuse = "one"
	if c.pass(t.Context()) {
		t.Error("a failed removal was taken for success")
	}
	h.want(cm + "one")
	h.cluster.refuse = ""
	if !c.pass(t.Context()) {
		t.Error("something is left to do")
	}
	h.want()
}

func TestNewNamesTheFolder(t *testing.T) {
	h := newHarness(t)
	h.cfg.Dir = filepath.Join(h.dir, "none")
	if _, err := New(h.cfg); err == nil || !strings.Contains(err.Error(), h.cfg.Dir) {
		t.Errorf("got %v, want the folder named", err)
	}
}

// TestStoppedPassAppliesNothing: a server that is told to stop must not begin with the next file.
func TestStoppedPassAppliesNothing(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", configMap("one"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.controller().pass(ctx)
	h.want()
}
