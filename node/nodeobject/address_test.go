package nodeobject

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestReaddress(t *testing.T) {
	four, six := netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("fd00::9")
	internal := func(a string) corev1.NodeAddress { return corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a} }
	other := []corev1.NodeAddress{{Type: corev1.NodeExternalIP, Address: "192.0.2.1"}, {Type: corev1.NodeHostName, Address: "a"}}
	for _, c := range []struct {
		name string
		have []corev1.NodeAddress
		now  []netip.Addr
		was  []string
		want []corev1.NodeAddress // nil: as it was
	}{
		{"as it was", append([]corev1.NodeAddress{internal("10.0.0.9")}, other...), []netip.Addr{four}, nil, nil},
		{"another", append([]corev1.NodeAddress{internal("10.0.0.1")}, other...), []netip.Addr{four}, []string{"10.0.0.1"}, append([]corev1.NodeAddress{internal("10.0.0.9")}, other...)},
		{"one of two families", []corev1.NodeAddress{internal("10.0.0.9"), internal("fd00::1")}, []netip.Addr{four, six}, []string{"10.0.0.9", "fd00::1"}, []corev1.NodeAddress{internal("10.0.0.9"), internal("fd00::9")}},
		{"a family that is still to come", []corev1.NodeAddress{internal("10.0.0.9")}, []netip.Addr{four, six}, nil, nil},
		{"none yet", other, []netip.Addr{four}, nil, nil},
	} {
		n := node("a", nil, corev1.ConditionTrue)
		n.Status.Addresses = c.have
		client := fake.NewClientset(n)
		was, err := Readdress(t.Context(), client, "a", c.now)
		if err != nil || !slices.Equal(was, c.was) {
			t.Errorf("%s: was %v, %v; want %v", c.name, was, err, c.was)
		}
		got, err := client.CoreV1().Nodes().Get(t.Context(), "a", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := c.want
		if want == nil {
			want = c.have
		}
		if !slices.Equal(got.Status.Addresses, want) {
			t.Errorf("%s: got %v, want %v", c.name, got.Status.Addresses, want)
		}
	}
	if was, err := Readdress(t.Context(), fake.NewClientset(), "a", []netip.Addr{four}); err != nil || was != nil {
		t.Errorf("no Node yet: %v, %v", was, err)
	}
	broken := fake.NewClientset()
	broken.PrependReactor("get", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("refused") })
	if _, err := Readdress(t.Context(), broken, "a", []netip.Addr{four}); err == nil {
		t.Error("no answer: no error")
	}
}
