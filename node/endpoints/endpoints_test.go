package endpoints

import (
	"context"
	"slices"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

func slice(name string, port int32, addresses ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		Ports:      []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To(port)}},
	}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	return s
}

func TestAddresses(t *testing.T) {
	gone := slice("kubernetes", 6443, "10.0.0.1", "10.0.0.2")
	gone.Endpoints[0].Conditions.Ready = ptr.To(false)
	unnamed := slice("kubernetes", 7443, "10.0.0.1")
	unnamed.Ports[0].Name = nil
	other := slice("kubernetes", 9999, "10.0.0.1")
	other.Ports[0].Name = ptr.To("metrics")
	for _, c := range []struct {
		name string
		in   []any
		want []string
	}{
		{"none", nil, nil},
		{"one", []any{slice("kubernetes", 6443, "10.0.0.1")}, []string{"10.0.0.1:6443"}},
		{"sorted, each once", []any{slice("kubernetes", 6443, "10.0.0.3", "10.0.0.1"), slice("more", 6443, "10.0.0.1")}, []string{"10.0.0.1:6443", "10.0.0.3:6443"}},
		{"IPv6", []any{slice("kubernetes", 6443, "fd00::1")}, []string{"[fd00::1]:6443"}},
		{"not ready", []any{gone}, []string{"10.0.0.2:6443"}},
		{"port without a name", []any{unnamed}, []string{"10.0.0.1:7443"}},
		{"another port", []any{other}, []string{"10.0.0.1:6443"}},
		{"something else in the store", []any{"x"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := addresses(c.in); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestWatchTellsEachChangeOnce(t *testing.T) {
	client := fake.NewClientset(slice("kubernetes", 6443, "10.0.0.1"))
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan []string)
	ended := make(chan error, 1)
	go func() {
		ended <- Watch(ctx, client, func(all []string) {
			select {
			case told <- all:
			case <-ctx.Done():
			}
		})
	}()
	expect := func(want ...string) {
		t.Helper()
		select {
		case got := <-told:
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%q was not told", want)
		}
	}
	update := func(s *discoveryv1.EndpointSlice) {
		t.Helper()
		if _, err := client.DiscoveryV1().EndpointSlices("default").Update(ctx, s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	expect("10.0.0.1:6443")
	update(slice("kubernetes", 6443, "10.0.0.2", "10.0.0.1"))
	expect("10.0.0.1:6443", "10.0.0.2:6443")
	// The same in another order is no change, and nobody at all is never told.
	update(slice("kubernetes", 6443, "10.0.0.1", "10.0.0.2"))
	update(slice("kubernetes", 6443))
	update(slice("kubernetes", 6443, "10.0.0.2"))
	expect("10.0.0.2:6443")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got %v at the end", err)
	}
}
