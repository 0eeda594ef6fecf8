package localpath

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

func newMachine(t *testing.T, nodes ...string) *machine {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	client := fake.NewClientset()
	for _, name := range nodes {
		if _, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return &machine{"one", dir, root, client}
}

func claim(change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	class := "local-path"
	c := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "data", UID: "77", Annotations: map[string]string{
			"volume.kubernetes.io/selected-node": "one", "volume.kubernetes.io/storage-provisioner": Provisioner,
		}},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	if change != nil {
		change(c)
	}
	return c
}

func storageClass() *storagev1.StorageClass {
	reclaim, binding := corev1.PersistentVolumeReclaimDelete, storagev1.VolumeBindingWaitForFirstConsumer
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "local-path"}, Provisioner: Provisioner, ReclaimPolicy: &reclaim, VolumeBindingMode: &binding}
}

func TestVolume(t *testing.T) {
	m := newMachine(t)
	made, state, err := m.Provision(t.Context(), controller.ProvisionOptions{StorageClass: storageClass(), PVName: "pvc-77", PVC: claim(nil)})
	if err != nil || state != controller.ProvisioningFinished {
		t.Fatal(state, err)
	}
	path := filepath.Join(m.dir, "pvc-77_default_data")
	if size := made.Spec.Capacity[corev1.ResourceStorage]; made.Name != "pvc-77" || made.Spec.HostPath.Path != path || size.String() != "1Gi" ||
		made.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || nodesOf(made)[0] != "one" {
		t.Errorf("got %+v", made)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeDir|0o777 {
		t.Fatalf("got %v, %v, want a folder that any user of the pod may write", info, err)
	}
	// What was made once is kept: the object may not have come to be.
	if err := os.WriteFile(filepath.Join(path, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.Provision(t.Context(), controller.ProvisionOptions{StorageClass: storageClass(), PVName: "pvc-77", PVC: claim(nil)}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(path, "file")); err != nil {
		t.Error(err)
	}
	for range 2 { // the second time it is gone already
		if err := m.Delete(t.Context(), made); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the folder: %v, want it gone", err)
	}
}

func TestProvisionRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		want   string
	}{
		"many writers": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		}, "ReadWriteMany"},
		"a selector":         {func(c *corev1.PersistentVolumeClaim) { c.Spec.Selector = &metav1.LabelSelector{} }, "selector"},
		"a way out":          {func(c *corev1.PersistentVolumeClaim) { c.Name = "/../../../x" }, "make the volume's folder"},
		"a way out, lexical": {func(c *corev1.PersistentVolumeClaim) { c.Namespace = "/../.." }, "make the volume's folder"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			volume, state, err := m.Provision(t.Context(), controller.ProvisionOptions{StorageClass: storageClass(), PVName: "pvc-77", PVC: claim(c.change)})
			if volume != nil || state != controller.ProvisioningFinished || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v, %v, want %q", volume, state, err, c.want)
			}
			if left, err := os.ReadDir(m.dir); err != nil || len(left) != 0 {
				t.Errorf("left %v, %v", left, err)
			}
		})
	}
}

func volume(node, path string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-1"},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
			}}}},
		},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeReleased},
	}
}

// A volume's path may be whatever its object says; nothing but a folder of ours is removed.
func TestDeleteRefuses(t *testing.T) {
	m := newMachine(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(m.dir, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "/", "/etc", outside, m.dir, m.dir + "/", m.dir + "/.", m.dir + "/..", m.dir + "/a/b", m.dir + "/../" + filepath.Base(outside), "a"} {
		if err := m.Delete(t.Context(), volume("one", path)); err == nil || !strings.Contains(err.Error(), "pvc-1") {
			t.Errorf("%q: got %v, want a refusal", path, err)
		}
	}
	if _, err := os.Stat(filepath.Join(m.dir, "a", "b")); err != nil {
		t.Error(err)
	}
	// A link in a volume, and one in its place: the link goes, what it leads to stays.
	for _, link := range []string{"a/link", "c"} {
		if err := os.Symlink(outside, filepath.Join(m.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "c"} {
		if err := m.Delete(t.Context(), volume("one", filepath.Join(m.dir, name))); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(m.dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(outside, "file")); err != nil {
		t.Errorf("what a link led to: %v", err)
	}
}

func TestWhoseVolume(t *testing.T) {
	m := newMachine(t, "one", "two")
	bound := volume("one", "/x")
	bound.Status.Phase = corev1.VolumeBound
	anywhere := volume("one", "/x")
	anywhere.Spec.NodeAffinity = nil
	for name, c := range map[string]struct {
		volume *corev1.PersistentVolume
		want   bool
	}{
		"ours":                      {volume("one", "/x"), true},
		"in use":                    {bound, false},
		"another machine's":         {volume("two", "/x"), false},
		"of a machine that is gone": {volume("three", "/x"), true},
		"of no machine":             {anywhere, false},
	} {
		if got := m.ShouldDelete(t.Context(), c.volume); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
	if err := os.Mkdir(filepath.Join(m.dir, "kept"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := m.Delete(t.Context(), volume("three", filepath.Join(m.dir, "kept"))); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(m.dir, "kept")); err != nil {
		t.Errorf("a folder of the name of another machine's volume: %v", err)
	}
	if !m.ShouldProvision(t.Context(), claim(nil)) {
		t.Error("a claim of this machine is left")
	}
	for _, node := range []string{"two", ""} {
		other := claim(func(c *corev1.PersistentVolumeClaim) { c.Annotations["volume.kubernetes.io/selected-node"] = node })
		if m.ShouldProvision(t.Context(), other) {
			t.Errorf("a claim of %q is taken", node)
		}
	}
}

// The library finds the claim and makes the PersistentVolume; a claim of another machine beside it gets none.
func TestServe(t *testing.T) {
	dir := t.TempDir()
	client := fake.NewClientset(storageClass())
	made, err := client.CoreV1().PersistentVolumes().Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, client, Options{Node: "one", Dir: dir}) }()
	for _, c := range []*corev1.PersistentVolumeClaim{
		claim(func(c *corev1.PersistentVolumeClaim) {
			c.Name, c.UID = "other", "78"
			c.Annotations["volume.kubernetes.io/selected-node"] = "two"
		}), claim(nil),
	} {
		if _, err := client.CoreV1().PersistentVolumeClaims("default").Create(ctx, c, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case e := <-made.ResultChan():
		pv, ok := e.Object.(*corev1.PersistentVolume)
		if !ok || e.Type != watch.Added || pv.Name != "pvc-77" || pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.Name != "data" ||
			pv.Annotations["pv.kubernetes.io/provisioned-by"] != Provisioner || pv.Spec.StorageClassName != "local-path" {
			t.Errorf("got %+v", e)
		}
	case err := <-ended:
		t.Fatal(err)
	case <-ctx.Done():
		t.Fatal("no volume was made")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of the volumes: %v, %v", info.Mode(), err)
	}
	if err := serve(t.Context(), client, Options{Node: "one", Dir: filepath.Join(dir, "none")}); err == nil || !strings.Contains(err.Error(), "folder of the volumes") {
		t.Errorf("got %v for a folder that is not there", err)
	}
}
