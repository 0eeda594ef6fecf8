package record

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"keelson/node/etcdsnapshot"
	"keelson/node/nodeobject"
)

var _ etcdsnapshot.Records = (*Records)(nil)

var start = time.Unix(1_800_000_000, 0).UTC()

func node(name string, labels ...string) runtime.Object {
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": name}}}
	set := map[string]string{}
	for _, l := range labels {
		set[l] = "true"
	}
	u.SetLabels(set)
	return u
}

func newRecords(nodes ...runtime.Object) (*Records, *fake.FakeDynamicClient) {
	client := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		Resource():                         "ETCDSnapshotFileList",
		{Version: "v1", Resource: "nodes"}: "NodeList",
		definitions():                      "CustomResourceDefinitionList",
	}, nodes...)
	r := New(client)
	r.now = func() time.Time { return start }
	return r, client
}

func local(node string, unix int64) etcdsnapshot.File {
	name := fmt.Sprintf("etcd-snapshot-%s-%d", node, unix)
	return etcdsnapshot.File{Name: name, Node: node, Location: "file:///snapshots/" + name, Size: 100, Created: time.Unix(unix, 0).UTC(), TokenHash: "abc"}
}

func remote(bucket, node string, unix int64) etcdsnapshot.File {
	f := local(node, unix)
	f.S3 = &etcdsnapshot.S3Target{Endpoint: "s3.example", Bucket: bucket}
	f.Location = f.S3.Location(f.Name)
	return f
}

func names(t *testing.T, r *Records) []string {
	t.Helper()
	all, err := r.list(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, o := range all {
		out = append(out, o.Labels[etcdsnapshot.LabelStorageNode]+":"+o.Spec.SnapshotName)
	}
	slices.Sort(out)
	return out
}

func TestRecordsFollowFiles(t *testing.T) {
	r, client := newRecords(node("a", nodeobject.LabelEtcd), node("b", nodeobject.LabelEtcd))
	ctx := context.Background()
	reconcile := func(node string, files ...etcdsnapshot.File) {
		t.Helper()
		if err := r.Reconcile(ctx, node, files, nil); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want ...string) {
		t.Helper()
		if got := names(t, r); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	reconcile("a", local("a", 1), local("a", 2))
	reconcile("b", local("b", 1))
	expect("a:etcd-snapshot-a-1", "a:etcd-snapshot-a-2", "b:etcd-snapshot-b-1")
	reconcile("a", local("a", 2))
	expect("a:etcd-snapshot-a-2", "b:etcd-snapshot-b-1")

	// Nothing changed: nothing is written but the node's stamp.
	client.ClearActions()
	reconcile("a", local("a", 2))
	for _, a := range client.Actions() {
		if a.GetResource() == Resource() && a.GetVerb() != "list" {
			t.Errorf("%s without a change", a.GetVerb())
		}
	}
	// Another size is another file.
	changed := local("a", 2)
	changed.Size = 5
	reconcile("a", changed)
	all, err := r.list(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := all[etcdsnapshot.ObjectOf(changed).Name]; got.Status.Size.Value() != 5 || got.Annotations[etcdsnapshot.AnnotationTokenHash] != "abc" {
		t.Errorf("got %+v", got)
	}
	n, err := client.Resource(nodes()).Get(ctx, "a", metav1.GetOptions{})
	if err != nil || n.GetAnnotations()[annotationLocal] != start.Format(time.RFC3339) || n.GetAnnotations()[annotationS3] != "" {
		t.Errorf("stamps: %v, %v", n.GetAnnotations(), err)
	}
}

func TestFailuresStayADay(t *testing.T) {
	r, _ := newRecords()
	ctx := context.Background()
	failed := local("a", start.Unix())
	failed.Failure = "disk full"
	if err := r.Reconcile(ctx, "a", []etcdsnapshot.File{failed}, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{0, 1}, {23 * time.Hour, 1}, {25 * time.Hour, 0}} {
		r.now = func() time.Time { return start.Add(c.after) }
		if err := r.Reconcile(ctx, "a", nil, nil); err != nil {
			t.Fatal(err)
		}
		if got := names(t, r); len(got) != c.want {
			t.Errorf("after %v: got %v, want %d", c.after, got, c.want)
		}
	}
}

func TestObjectStores(t *testing.T) {
	r, _ := newRecords()
	ctx := context.Background()
	target := func(bucket string) etcdsnapshot.S3Target {
		return etcdsnapshot.S3Target{Endpoint: "s3.example", Bucket: bucket}
	}
	reconcile := func(bucket string, files ...etcdsnapshot.File) {
		t.Helper()
		if err := r.Reconcile(ctx, "a", nil, &etcdsnapshot.Remotes{Target: target(bucket), Files: files}); err != nil {
			t.Fatal(err)
		}
	}
	reconcile("one", remote("one", "a", 1), remote("one", "b", 1))
	reconcile("two", remote("two", "a", 1))
	if got := names(t, r); len(got) != 3 {
		t.Errorf("another bucket's records are gone: %v", got)
	}
	if err := r.Reconcile(ctx, "a", nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := names(t, r); len(got) != 3 {
		t.Errorf("an object store that was not asked lost its records: %v", got)
	}
	reconcile("one", remote("one", "b", 1))
	if got := names(t, r); len(got) != 2 {
		t.Errorf("got %v, want the removed object's record gone", got)
	}
	// The record of an object that was just put stays, listed or not.
	fresh := etcdsnapshot.ObjectOf(remote("two", "a", 1))
	u, err := r.client.Resource(Resource()).Get(ctx, fresh.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	u.SetCreationTimestamp(metav1.NewTime(start.Add(-30 * time.Second)))
	if _, err := r.client.Resource(Resource()).Update(ctx, u, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if reconcile("two"); len(names(t, r)) != 2 {
		t.Errorf("got %v", names(t, r))
	}
	r.now = func() time.Time { return start.Add(time.Hour) }
	if reconcile("two"); len(names(t, r)) != 1 {
		t.Errorf("got %v", names(t, r))
	}
}

func TestNodesThatAreNoMembersAnyMore(t *testing.T) {
	for _, c := range []struct {
		name  string
		nodes []runtime.Object
		want  []string
	}{
		{"b is gone", []runtime.Object{node("a", nodeobject.LabelEtcd)}, []string{"a:etcd-snapshot-a-1", "s3:etcd-snapshot-b-1"}},
		{"b has another role", []runtime.Object{node("a", nodeobject.LabelEtcd), node("b")}, []string{"a:etcd-snapshot-a-1", "s3:etcd-snapshot-b-1"}},
		{"b is one", []runtime.Object{node("a", nodeobject.LabelEtcd), node("b", nodeobject.LabelEtcd)}, []string{"a:etcd-snapshot-a-1", "b:etcd-snapshot-b-1", "s3:etcd-snapshot-b-1"}},
		{"nobody is marked yet", []runtime.Object{node("a")}, []string{"a:etcd-snapshot-a-1", "b:etcd-snapshot-b-1", "s3:etcd-snapshot-b-1"}},
	} {
		r, client := newRecords(c.nodes...)
		ctx := context.Background()
		for _, f := range []etcdsnapshot.File{local("b", 1), remote("one", "b", 1)} {
			if err := r.write(ctx, etcdsnapshot.Object{}, etcdsnapshot.ObjectOf(f), false); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Reconcile(ctx, "a", []etcdsnapshot.File{local("a", 1)}, nil); err != nil {
			t.Fatal(err)
		}
		if got := names(t, r); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
		_ = client
	}
}

func TestFailuresOfTheAPI(t *testing.T) {
	r, client := newRecords(node("a", nodeobject.LabelEtcd))
	refused := errors.New("webhook is down")
	client.PrependReactor("create", "etcdsnapshotfiles", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, refused })
	err := r.Reconcile(context.Background(), "a", []etcdsnapshot.File{local("a", 1)}, nil)
	if !errors.Is(err, refused) || !strings.Contains(err.Error(), "local-etcd-snapshot-a-1") {
		t.Errorf("got %v", err)
	}
	client.PrependReactor("list", "etcdsnapshotfiles", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, refused })
	if err := r.Reconcile(context.Background(), "a", nil, nil); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
}

// In a new cluster the resource is made when it is first needed, and its objects once kube-apiserver serves it.
func TestTheResourceIsDefined(t *testing.T) {
	r, client := newRecords(node("a", nodeobject.LabelEtcd))
	lists := 0
	client.PrependReactor("list", "etcdsnapshotfiles", func(clienttesting.Action) (bool, runtime.Object, error) {
		if lists++; lists < 4 {
			return true, nil, apierrors.NewNotFound(Resource().GroupResource(), "")
		}
		return false, nil, nil
	})
	if err := r.Reconcile(context.Background(), "a", []etcdsnapshot.File{local("a", 1)}, nil); err != nil {
		t.Fatal(err)
	}
	if got := names(t, r); len(got) != 1 {
		t.Errorf("got %v", got)
	}
	if _, err := client.Resource(definitions()).Get(context.Background(), "etcdsnapshotfiles.k3s.cattle.io", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

// The schema prunes what it does not name: every field that is written must be in it.
func TestDefinitionNamesEveryField(t *testing.T) {
	var crd map[string]any
	if err := yaml.Unmarshal(definition, &crd); err != nil {
		t.Fatal(err)
	}
	if name, _, _ := unstructured.NestedString(crd, "metadata", "name"); name != Resource().Resource+"."+Resource().Group {
		t.Errorf("name %q", name)
	}
	versions, _, err := unstructured.NestedSlice(crd, "spec", "versions")
	if err != nil || len(versions) != 1 {
		t.Fatalf("versions: %v, %v", versions, err)
	}
	properties, _, err := unstructured.NestedMap(versions[0].(map[string]any), "schema", "openAPIV3Schema", "properties")
	if err != nil {
		t.Fatal(err)
	}
	full := remote("b", "a", 1)
	full.S3 = &etcdsnapshot.S3Target{Endpoint: "e", EndpointCA: "c", SkipSSLVerify: true, Bucket: "b", BucketLookup: "path", Region: "r", Prefix: "p", Insecure: true}
	full.Metadata = map[string]string{"k": "v"}
	failed := full
	failed.Failure = "why"
	for _, f := range []etcdsnapshot.File{full, failed} {
		o := etcdsnapshot.ObjectOf(f)
		u, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&o)
		if err != nil {
			t.Fatal(err)
		}
		delete(u, "metadata")
		named(t, "", u, properties)
	}
}

// kube-apiserver's own judgement of the definition.
func TestDefinitionIsValid(t *testing.T) {
	var v1 apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(definition, &v1); err != nil {
		t.Fatal(err)
	}
	apiextensionsv1.SetDefaults_CustomResourceDefinition(&v1)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&v1.Spec)
	var internal apiextensions.CustomResourceDefinition
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&v1, &internal, nil); err != nil {
		t.Fatal(err)
	}
	internal.Status.StoredVersions = []string{"v1"}
	if problems := validation.ValidateCustomResourceDefinition(context.Background(), &internal); len(problems) > 0 {
		t.Errorf("%v", problems.ToAggregate())
	}
}

func named(t *testing.T, at string, object, properties map[string]any) {
	t.Helper()
	for key, value := range object {
		property, ok := properties[key].(map[string]any)
		if !ok {
			t.Errorf("%s/%s is not in the schema", at, key)
			continue
		}
		inner, isMap := value.(map[string]any)
		if below, ok := property["properties"].(map[string]any); isMap && ok {
			named(t, at+"/"+key, inner, below)
		}
	}
}
