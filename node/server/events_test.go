package server

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"keelson/node/etcdsnapshot"
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

// From the first moment on, without etcd and without kube-apiserver, the disk is watched and shown.
func TestDiskIsWatched(t *testing.T) {
	s := newServer(t, nil)
	prepare(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	s.background = func(_ string, run func(context.Context) error) { go func() { ended <- run(ctx) }() }
	if err := s.watchDisk(ctx); err != nil {
		t.Fatal(err)
	}
	if d := s.status(ctx).Disk; d == nil || d.Path != s.settings.DataDir || d.Total == 0 {
		t.Errorf("got %+v", d)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestSnapshotsAreGivenUp(t *testing.T) {
	s := newServer(t, nil)
	never := func() bool { return false }
	if gone, err := s.shedSnapshots(t.Context(), never); err != nil || gone != nil {
		t.Errorf("before there are snapshots: %v, %v", gone, err)
	}
	store := func(dir string) {
		m := &etcdsnapshot.Manager{Config: etcdsnapshot.Config{Dir: dir, NodeName: "cp-1"}}
		for _, name := range []string{"on-demand-cp-1-1700000000", "etcd-snapshot-cp-1-1700000001"} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s.snapshots.Store(m)
	}
	if err := os.MkdirAll(s.settings.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	store(s.snapshotDir())
	if gone, err := s.shedSnapshots(t.Context(), never); err != nil || !slices.Equal(gone, []string{"on-demand-cp-1-1700000000"}) {
		t.Errorf("gone: %v, %v; want the older one", gone, err)
	}
	elsewhere, err := os.MkdirTemp("/dev/shm", "snapshots")
	if err != nil {
		t.Skipf("no other file system: %v", err)
	}
	defer os.RemoveAll(elsewhere)
	store(elsewhere)
	if gone, err := s.shedSnapshots(t.Context(), never); err != nil || gone != nil {
		t.Errorf("on another file system, where it would free nothing: gone %v, %v", gone, err)
	}
}

// The console tells of a machine that came up elsewhere, and kube-proxy finds the new address.
func TestNodeIsReaddressed(t *testing.T) {
	s := newServer(t, nil)
	console := new(bytes.Buffer)
	s.cfg.Console = console
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "cp-1"}, Status: corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.2.99"}},
	}})
	s.client = client
	for range 2 {
		if err := s.readdress(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	n, err := client.CoreV1().Nodes().Get(t.Context(), "cp-1", metav1.GetOptions{})
	if err != nil || len(n.Status.Addresses) != 1 || n.Status.Addresses[0].Address != "10.0.2.15" {
		t.Errorf("got %+v, %v", n, err)
	}
	if got := console.String(); got != "keelson: node: the address of this machine was 10.0.2.99 and is 10.0.2.15\n" {
		t.Errorf("the console says %q", got)
	}
	client.PrependReactor("get", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, os.ErrDeadlineExceeded })
	if err := s.readdress(t.Context()); err != nil {
		t.Errorf("the cluster does not answer: %v, want the start to go on", err)
	}
}
