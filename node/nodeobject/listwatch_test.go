package nodeobject

import (
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
)

// TestListWatch: list and watch are narrowed down alike, or a Node would be there in one and not in the other.
func TestListWatch(t *testing.T) {
	stop := errors.New("seen")
	for _, c := range []struct {
		name          string
		choose        func(*metav1.ListOptions)
		label, fields string
	}{
		{"all", nil, "", ""},
		{"by label", func(o *metav1.ListOptions) { o.LabelSelector = LabelEtcd + "=true" }, LabelEtcd + "=true", ""},
		{"one", func(o *metav1.ListOptions) { o.FieldSelector = "metadata.name=cp-1" }, "", "metadata.name=cp-1"},
	} {
		client := fake.NewClientset()
		asked := map[string]clienttesting.ListRestrictions{}
		client.PrependReactor("list", "nodes", func(a clienttesting.Action) (bool, runtime.Object, error) {
			asked["list"] = a.(clienttesting.ListAction).GetListRestrictions()
			return true, nil, stop
		})
		lw := cache.ToListerWatcherWithContext(ListWatch(client, c.choose))
		if _, err := lw.ListWithContext(t.Context(), metav1.ListOptions{}); !errors.Is(err, stop) {
			t.Errorf("%s: list: got %v", c.name, err)
		}
		w, err := lw.WatchWithContext(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		w.Stop()
		for _, a := range client.Actions() {
			if watched, ok := a.(clienttesting.WatchAction); ok {
				r := watched.GetWatchRestrictions()
				asked["watch"] = clienttesting.ListRestrictions{Labels: r.Labels, Fields: r.Fields}
			}
		}
		for _, verb := range []string{"list", "watch"} {
			r, ok := asked[verb]
			if !ok || r.Labels.String() != c.label || r.Fields.String() != c.fields {
				t.Errorf("%s: %s of labels %v, fields %v; want %q, %q", c.name, verb, r.Labels, r.Fields, c.label, c.fields)
			}
		}
	}
}
