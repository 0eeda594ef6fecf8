package server

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/node/nodeobject"
)

func TestServersOf(t *testing.T) {
	node := func(name string, labels ...string) corev1.Node {
		n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
		for _, l := range labels {
			n.Labels[l] = "true"
		}
		return n
	}
	for _, c := range []struct {
		name    string
		nodes   []corev1.Node
		members []string
		want    []string
	}{
		{"all roles", []corev1.Node{
			node("cp-1", nodeobject.LabelControlPlane, nodeobject.LabelEtcd), node("etcd-1", nodeobject.LabelEtcd), node("cp-2", nodeobject.LabelControlPlane), node("w-1"),
		}, []string{"cp-1-01234567", "etcd-1-01234567"}, []string{"cp-1", "etcd-1", "cp-2"}},
		{"a member whose Node is not there yet", []corev1.Node{node("cp-1", nodeobject.LabelEtcd)}, []string{"cp-1-01234567", "cp-1-b-01234567"}, []string{"cp-1", "cp-1-b"}},
		{"a member that has never started", nil, []string{"cp-1-01234567", ""}, []string{"cp-1", "a member of etcd that has not started"}},
	} {
		if got := serversOf(c.nodes, c.members); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
