package server

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"keelson/node/config"
	"keelson/node/etcdsnapshot/etcdtest"
	"keelson/node/staticpod"
)

// changed is a server that runs, three of whose pods have manifests of before.
func changed(t *testing.T) (*Server, []string) {
	t.Helper()
	s := newServer(t, func(c *config.Config) { c.Token = clusterToken })
	prepare(t, s)
	if err := errors.Join(s.writeControllers(t.Context()), s.writeCloudController(t.Context())); err != nil {
		t.Fatal(err)
	}
	stale := []string{staticpod.ControllerManager, staticpod.Scheduler, staticpod.KubeProxy}
	for _, component := range stale {
		path := s.agent("pod-manifests", component+".yaml")
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(content, "# of before\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.etcd = etcdtest.Start(t, 1, nil)[0].Client
	return s, stale
}

func TestPodsAreReplacedOneAtATime(t *testing.T) {
	s, stale := changed(t)
	var asked []string
	client := fake.NewClientset()
	client.PrependReactor("get", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		name := a.(clienttesting.GetAction).GetName()
		component := strings.TrimSuffix(name, "-cp-1")
		asked = append(asked, component)
		// Those after it are untouched while one is awaited.
		for _, later := range stale[slices.Index(stale, component)+1:] {
			if due, err := s.isStale(later); err != nil || !due {
				t.Errorf("%s has been replaced before %s was back: %v", later, component, err)
			}
		}
		uid, err := s.manifestUID(component)
		return true, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"kubernetes.io/config.hash": uid}},
			Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
		}, err
	})
	s.client = client
	close(s.ready)
	if err := s.replacePods(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(asked, stale) {
		t.Errorf("replaced %v, want %v", asked, stale)
	}
	if err := s.replacePods(t.Context()); err != nil || len(asked) != len(stale) {
		t.Errorf("a second time: %v, %v", err, asked)
	}
	left, err := s.etcd.Get(t.Context(), "keelson/turn/pods")
	if err != nil || len(left.Kvs) != 0 {
		t.Errorf("the turn was not given back: %v, %v", left, err)
	}
}

// A start goes on by itself: nobody can be asked for a pod yet.
func TestPodsOfAStartAreOnlyWritten(t *testing.T) {
	s, stale := changed(t)
	if err := s.replacePods(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, component := range stale {
		if due, err := s.isStale(component); err != nil || due {
			t.Errorf("%s is as before: %v", component, err)
		}
	}
}
