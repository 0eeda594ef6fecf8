package cluster

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"keelson/testvm/cidata"
	"keelson/testvm/kube"
)

// A file in server/manifests, from its coming to its going: applied, changed, broken, mended, removed, disabled; each told
// on its Addon.
func TestManifests(t *testing.T) {
	const folder = "/var/lib/rancher/rke2/server/manifests/"
	configMaps := func(names ...string) string {
		var parts []string
		for _, name := range names {
			parts = append(parts, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "+name+", namespace: default}\n")
		}
		return strings.Join(parts, "---\n")
	}
	c := newCluster(t)
	s := c.add("server-1", "server", 1, func(cc *cidata.CloudConfig) {
		cc.WriteFiles = append(cc.WriteFiles, cidata.File{Path: folder + "demo.yaml", Permissions: "0600", Content: configMaps("one", "two")})
	})
	c.start(s)
	client := c.client(s)
	c.whole(client)
	if _, err := client.PodsReady(within(t, readyLimit), "kube-system"); err != nil {
		t.Fatal(err)
	}
	type addon struct {
		Metadata metav1.ObjectMeta
		Spec     struct{ Source, Checksum string }
	}
	get := func(name string) (a addon, err error) {
		t.Helper()
		raw, err := client.CoreV1().RESTClient().Get().AbsPath("/apis/k3s.cattle.io/v1/namespaces/kube-system/addons/" + name).DoRaw(within(t, changeLimit))
		if err == nil {
			err = json.Unmarshal(raw, &a)
		}
		return a, err
	}
	for _, name := range []string{"demo", "rke2-coredns", "rke2-flannel"} {
		if a, err := get(name); err != nil || len(a.Spec.Checksum) != 64 || a.Spec.Source != folder+name+".yaml" || a.Metadata.Annotations["addon.k3s.cattle.io/gvks"] == "" {
			t.Errorf("Addon %s: got %+v, %v", name, a, err)
		}
	}
	ctx := within(t, readyLimit)
	changes, err := client.CoreV1().ConfigMaps("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer changes.Stop()
	events, err := client.CoreV1().Events("kube-system").Watch(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Addon,involvedObject.name=demo"})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	await := func(w watch.Interface, what string, is func(watch.Event) bool) {
		t.Helper()
		for e := range w.ResultChan() {
			if is(e) {
				return
			}
		}
		t.Fatalf("not seen: %s", what)
	}
	told := func(reason, text string) {
		t.Helper()
		await(events, reason, func(e watch.Event) bool {
			event, ok := e.Object.(*corev1.Event)
			return ok && event.Reason == reason && strings.Contains(event.Message, text)
		})
	}
	configMap := func(kind watch.EventType, name string) {
		t.Helper()
		await(changes, string(kind)+" "+name, func(e watch.Event) bool {
			m, ok := e.Object.(*corev1.ConfigMap)
			return ok && e.Type == kind && m.Name == name
		})
	}
	onNode := func(args ...string) {
		t.Helper()
		output, err := client.RunPod(within(t, changeLimit), kube.Pod{
			Namespace: "kube-system", Name: fmt.Sprintf("file-%d", time.Now().UnixNano()), Image: workloadImage, Args: args, Host: true, Node: s.name,
		})
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, output)
		}
	}
	const file = "/proc/1/root" + folder + "demo.yaml"
	told("AppliedManifest", "demo.yaml")
	configMap(watch.Added, "two")

	onNode("write", file, configMaps("two", "three"))
	configMap(watch.Added, "three")
	configMap(watch.Deleted, "one")

	onNode("write", file, configMaps("two", "three")+"---\na: [\n")
	told("ParseManifestFailed", "demo.yaml: document 3 (line 9)")
	onNode("write", file, configMaps("three", "four")+"---\nkind: Widget\napiVersion: x.example/v1\nmetadata: {name: w}\n")
	told("ApplyManifestFailed", "document 3 (line 9): Widget w")
	configMap(watch.Added, "four")
	if _, err := client.CoreV1().ConfigMaps("default").Get(ctx, "two", metav1.GetOptions{}); err != nil {
		t.Errorf("a file that failed had something removed: %v", err)
	}
	onNode("write", file, configMaps("three", "four"))
	configMap(watch.Deleted, "two")

	onNode("remove", file)
	onNode("write", "/proc/1/root"+folder+"after.yaml", configMaps("after")) // when this is there, the removal was seen
	configMap(watch.Added, "after")
	if _, err := client.CoreV1().ConfigMaps("default").Get(ctx, "three", metav1.GetOptions{}); err != nil {
		t.Errorf("what a removed file had is gone: %v", err)
	}

	// The next start has it disabled, by the name of a file that is not there any more.
	if err := s.Shutdown(within(t, stopLimit)); err != nil {
		t.Fatal(err)
	}
	s.seed.RKE2["disable"] = []string{"demo"}
	s.seed.WriteFiles = s.seed.WriteFiles[:1]
	doc, err := s.seed.Render()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reseed(cidata.Volume{UserData: doc}); err != nil {
		t.Fatal(err)
	}
	c.start(s)
	client = c.client(s)
	c.whole(client)
	gone := within(t, changeLimit)
	left, err := client.CoreV1().ConfigMaps("default").Watch(gone, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer left.Stop()
	for _, name := range []string{"three", "four"} {
		if _, err := client.CoreV1().ConfigMaps("default").Get(gone, name, metav1.GetOptions{}); err == nil {
			await(left, "the end of "+name, func(e watch.Event) bool {
				m, ok := e.Object.(*corev1.ConfigMap)
				return ok && e.Type == watch.Deleted && m.Name == name
			})
		}
	}
	if _, err := client.CoreV1().ConfigMaps("default").Get(gone, "after", metav1.GetOptions{}); err != nil {
		t.Errorf("another add-on's: %v", err)
	}
	if _, err := get("demo"); !apierrors.IsNotFound(err) {
		t.Errorf("Addon demo: got %v, want that it is gone", err)
	}
}
