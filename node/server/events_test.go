package server

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"keelson/node/pki"
)

func TestCertificatesAreTold(t *testing.T) {
	s := newServer(t, nil)
	if _, err := pki.Ensure(pki.Params{ // 300 days ago, and not renewed
		ServerDir: s.server(), AgentDir: s.agent(), NodeName: "cp-1", ClusterDomain: "cluster.local",
		Addresses: s.settings.NodeIP, Now: time.Now().Add(-300 * 24 * time.Hour),
	}); err != nil {
		t.Fatal(err)
	}
	client, events := fake.NewClientset(), make(chan corev1.Event, 10)
	client.PrependReactor("create", "events", func(a clienttesting.Action) (bool, runtime.Object, error) {
		events <- *a.(clienttesting.CreateAction).GetObject().(*corev1.Event)
		return false, nil, nil
	})
	s.client = client
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	s.background = func(_ string, run func(context.Context) error) { go func() { ended <- run(ctx) }() }
	if err := s.tellEvents(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-events:
		if e.Reason != "CertificateExpirationWarning" || e.Type != corev1.EventTypeWarning || e.InvolvedObject.Name != s.settings.NodeName {
			t.Errorf("got %+v", e)
		}
	case <-time.After(20 * time.Second):
		t.Error("no event came")
	}
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
