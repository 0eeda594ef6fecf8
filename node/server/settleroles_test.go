package server

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keelson/node/config"
	"keelson/node/file"
	"keelson/node/nodeobject"
	"keelson/node/staticpod"
)

func TestSettleRoles(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*config.Config)
		running bool     // node has run since the machine started
		left    []string // manifests
		says    string   // part of the error
	}{
		{"all", nil, false, []string{"cloud-controller-manager", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}, ""},
		{"without etcd", func(c *config.Config) { c.DisableEtcd, c.Server, c.Token = true, "https://h:9345", "t" }, false, []string{"cloud-controller-manager", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}, ""},
		{"etcd alone", etcdAlone, false, []string{"etcd"}, ""},
		{"no controllers", func(c *config.Config) { c.DisableControllerManager, c.DisableScheduler = true, true }, true, []string{"cloud-controller-manager", "etcd", "kube-apiserver"}, ""},
		{"etcd alone, under a running kube-apiserver", etcdAlone, true, nil, "disable-apiserver is set, and kube-apiserver runs here: restart the machine"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t, c.change)
			if err := s.makeFolders(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{staticpod.CloudController, staticpod.Etcd, staticpod.APIServer, staticpod.ControllerManager, staticpod.Scheduler} {
				if err := file.Write(s.agent("pod-manifests", name+".yaml"), []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := file.Write(s.etcdList(), []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.running {
				if err := os.MkdirAll(filepath.Dir(s.places.started), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := file.Write(s.places.started, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := s.settleRoles(t.Context())
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got %v, want %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			left, err := filepath.Glob(s.agent("pod-manifests", "*.yaml"))
			for i := range left {
				left[i] = strings.TrimSuffix(filepath.Base(left[i]), ".yaml")
			}
			if err != nil || !slices.Equal(left, c.left) {
				t.Errorf("got manifests %v, %v, want %v", left, err, c.left)
			}
			if _, err := os.Stat(s.etcdList()); errors.Is(err, fs.ErrNotExist) == s.settings.DisableEtcd {
				t.Errorf("the list of others' members: %v", err)
			}
		})
	}
}

// The steps of a part that a server lacks are skipped, and so is what replaces a part that it has.
func TestStepsOfRoles(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*config.Config)
		skipped []string
	}{
		{"all", func(*config.Config) {}, []string{"balancer of kube-apiservers", "balancer of etcd", "others' etcd", "others' kube-apiservers", "members alone", "registry"}},
		{"sharing images", func(c *config.Config) { c.EmbeddedRegistry = true }, []string{"balancer of kube-apiservers", "balancer of etcd", "others' etcd", "others' kube-apiservers", "members alone"}},
		{"without etcd", func(c *config.Config) { c.DisableEtcd = true }, []string{
			"reset", "balancer of kube-apiservers", "etcd member", "etcd pod", "resets", "etcd", "others' kube-apiservers", "membership", "reset's end", "members",
			"members alone", "snapshots", "registry", "etcd care",
		}},
		{"etcd alone", etcdAlone, []string{
			"gate", "balancer of etcd", "apiserver pod", "manifests", "others' etcd", "joined apiserver pod", "add-ons", "charts", "cloud controller", "members", "endpoints", "registry",
		}},
	} {
		s := new(Server)
		c.change(&s.cfg.Settings)
		var skipped []string
		for _, step := range s.steps() {
			if step.Skip {
				skipped = append(skipped, step.Name)
			}
		}
		if !slices.Equal(skipped, c.skipped) {
			t.Errorf("%s: skipped\n%q, want\n%q", c.name, skipped, c.skipped)
		}
	}
}

func TestMarksOfRoles(t *testing.T) {
	for _, c := range []struct {
		name                string
		change              func(*config.Config)
		control, etcd       bool
		withoutC, withoutED bool
	}{
		{"all", nil, true, true, false, false},
		{"without etcd", func(c *config.Config) { c.DisableEtcd, c.Server, c.Token = true, "https://h:9345", "t" }, true, false, false, true},
		{"etcd alone", etcdAlone, false, true, true, false},
	} {
		s := newServer(t, c.change)
		s.member.Name, s.member.Address = "n-1", "10.0.0.1"
		m := nodeobject.Marks{Labels: map[string]string{}, Annotations: map[string]string{}}
		s.markRoles(&m)
		got := [5]bool{
			m.Labels[nodeobject.LabelControlPlane] == "true", m.Labels[nodeobject.LabelEtcd] == "true", m.Annotations[nodeobject.AnnotationEtcdName] == "n-1",
			slices.Contains(m.Without, nodeobject.LabelControlPlane), slices.Contains(m.Without, nodeobject.LabelEtcd),
		}
		if want := [5]bool{c.control, c.etcd, c.etcd, c.withoutC, c.withoutED}; got != want {
			t.Errorf("%s: got %v, want %v", c.name, got, want)
		}
	}
}
