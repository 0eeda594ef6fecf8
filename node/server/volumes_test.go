package server

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// After the machine has started volumes are gone that the kubelet makes anew, and nothing else of its pods; under a
// supervisor that starts again, pods use them.
func TestStaleVolumesGoOnlyAfterTheMachineStarted(t *testing.T) {
	s := newServer(t, nil)
	at := func(path string) string { return filepath.Join(s.places.kubelet, "pods", "uid", path) }
	write := func() {
		for _, path := range []string{"volumes/kubernetes.io~projected/token/ca.crt", "volumes/kubernetes.io~configmap/cfg/net.json", "volumes/kubernetes.io~empty-dir/data/file", "etc-hosts"} {
			if err := os.MkdirAll(filepath.Dir(at(path)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(at(path), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	exists := func(path string) bool {
		_, err := os.Stat(at(path))
		return !errors.Is(err, os.ErrNotExist)
	}
	write()
	if err := s.removeStalePods(t.Context()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"volumes/kubernetes.io~projected": false, "volumes/kubernetes.io~configmap": false, "volumes/kubernetes.io~empty-dir/data/file": true, "etc-hosts": true,
	} {
		if got := exists(path); got != want {
			t.Errorf("after the machine started: %s is there: %v, want %v", path, got, want)
		}
	}
	write()
	if err := s.removeStalePods(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !exists("volumes/kubernetes.io~projected/token/ca.crt") {
		t.Error("the volume of a running pod was removed")
	}
}
