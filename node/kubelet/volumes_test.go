package kubelet

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestRemoveStaleVolumes: what the kubelet makes anew goes, of every pod; what a pod wrote stays.
func TestRemoveStaleVolumes(t *testing.T) {
	root := t.TempDir()
	stay := []string{"pods/a/volumes/kubernetes.io~empty-dir/data/file", "pods/a/etc-hosts", "pods/b/volumes/kubernetes.io~csi/x/mount", "plugins/kubernetes.io~secret/x"}
	var leave []string
	for _, kind := range remadeVolumes() {
		leave = append(leave, "pods/a/volumes/"+kind+"/one/file", "pods/b/volumes/"+kind+"/two/..data/file")
	}
	for _, path := range slices.Concat(stay, leave) {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second finds nothing
		if err := RemoveStaleVolumes(root); err != nil {
			t.Fatal(err)
		}
	}
	there := func(path string) bool {
		_, err := os.Stat(filepath.Join(root, path))
		return !errors.Is(err, os.ErrNotExist)
	}
	for _, path := range stay {
		if !there(path) {
			t.Errorf("%s is gone", path)
		}
	}
	for _, path := range leave {
		if there(path) {
			t.Errorf("%s is there", path)
		}
	}
	if err := RemoveStaleVolumes(filepath.Join(root, "absent")); err != nil {
		t.Errorf("a machine without pods: %v", err)
	}
}
