package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/testvm/access"
	"keelson/testvm/cidata"
	"keelson/testvm/kube"
	"keelson/testvm/netns"
)

// etcdOnly and controlOnly are what user-data of a server of one role says.
func etcdOnly(c *cidata.CloudConfig) {
	for _, key := range []string{"disable-apiserver", "disable-controller-manager", "disable-scheduler"} {
		c.RKE2[key] = true
	}
}

func controlOnly(join int) func(*cidata.CloudConfig) {
	return func(c *cidata.CloudConfig) {
		joins(join)(c)
		c.RKE2["disable-etcd"] = true
	}
}

// clientBy is client for a server that gives nobody the cluster's keys, because it has no etcd.
func (c *cluster) clientBy(m, by *member) *kube.Client {
	c.t.Helper()
	data, err := m.Computer.(*netns.Machine).KubeconfigBy(within(c.t, readyLimit), by.Supervisor())
	if err != nil {
		c.t.Fatal(err)
	}
	client, err := kube.Load(data)
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

// A cluster begins with a server that has etcd alone, which waits for a control plane; one without etcd joins it, and
// an agent. All is Ready, and the workload answers. Then the control plane's machine is switched off and comes back
// without being told anything, and so does etcd's.
func TestRoles(t *testing.T) {
	c := newCluster(t)
	store := c.add("etcd-1", "server", 1, etcdOnly)
	plane := c.add("plane-1", "server", 2, controlOnly(1))
	agent := c.add("agent-1", "agent", 3, joins(1))
	c.start(store)
	if _, err := store.Expect(within(t, readyLimit), "waiting for a server with a control plane to join at https://"); err != nil {
		t.Fatal(err)
	}
	t.Logf("etcd alone serves %.1f s after power-on", time.Since(store.Started()).Seconds())
	began := time.Now()
	c.start(plane, agent)
	client := c.clientBy(plane, store)
	if err := client.NodesReady(within(t, readyLimit), c.names()...); err != nil {
		t.Fatal(err)
	}
	t.Logf("all Ready %.1f s after the control plane's power-on", time.Since(began).Seconds())
	c.rolesAre(client, map[string][]string{"etcd-1": {"etcd"}, "plane-1": {"control-plane"}, "agent-1": nil})
	c.podsAre(client, map[string][]string{
		"etcd-1":  {"etcd", "kube-proxy"},
		"plane-1": {"cloud-controller-manager", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler"},
		"agent-1": {"kube-proxy"},
	})
	c.votersAre(within(t, readyLimit), store, store)
	if err := client.APIServersAre(within(t, changeLimit), fmt.Sprintf("%s:6443", netns.Address(2))); err != nil {
		t.Error(err)
	}
	service := c.ensureWeb(client)
	c.answersFromEach(client, service)
	if _, err := client.PodsReady(within(t, readyLimit), "kube-system"); err != nil {
		t.Error(err)
	}
	for node, p := range c.pods(client) { // logs come by the tunnel to the only kube-apiserver
		if logs, err := client.Logs(within(t, changeLimit), p.Namespace, p.Name); err != nil || !strings.Contains(logs, "serving as "+p.Name) {
			t.Errorf("logs from %s: got %q, %v", node, logs, err)
		}
	}
	c.answers(plane, "/db/info", "400", "etcd datastore disabled")
	c.answers(plane, "/v1-rke2/server-bootstrap", "400", "etcd disabled")
	// The etcd server's own way to the API, with its load balancer.
	if err := c.client(store).NodesReady(within(t, changeLimit), c.names()...); err != nil {
		t.Error(err)
	}

	for _, m := range []*member{plane, store} {
		cut(t, m)
		began := time.Now()
		c.start(m)
		client = c.clientBy(plane, store)
		if err := client.NodesReady(within(t, readyLimit), c.names()...); err != nil {
			t.Fatal(err)
		}
		h := watchWrites(t, client)
		if err := h.success(within(t, changeLimit), time.Now()); err != nil {
			t.Fatal(err)
		}
		h.stop()
		t.Logf("%s back after a power cut: all Ready and writes taken %.1f s later", m.name, time.Since(began).Seconds())
		c.workloadStarted(client, began, m) // what the API says of its pods is from before the cut
		c.ensureWeb(client)
		c.answersFromEach(client, service)
	}
	began = time.Now()
	if err := plane.Shutdown(within(t, stopLimit)); err != nil {
		t.Error(err)
	}
	t.Logf("the server without etcd shut down in %.1f s", time.Since(began).Seconds())
}

// A server with all roles gives one up at its next boot. Without etcd, its member leaves and its data stays beside;
// without kube-apiserver, its pods go. Then it takes both up again.
func TestRolesChange(t *testing.T) {
	c := newHA(t)
	client, changing := c.client(c.all["server-1"]), c.all["server-3"]
	service := c.ensureWeb(client)
	for _, step := range []struct {
		name   string
		change func(*cidata.CloudConfig)
		roles  []string
		voters int
		pods   []string
	}{
		{"without etcd", controlOnly(1), []string{"control-plane"}, 2, []string{"cloud-controller-manager", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler"}},
		{"etcd alone", func(d *cidata.CloudConfig) { joins(1)(d); etcdOnly(d) }, []string{"etcd"}, 3, []string{"etcd", "kube-proxy"}},
		{"all again", joins(1), []string{"control-plane", "etcd"}, 3, []string{"cloud-controller-manager", "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler"}},
	} {
		if err := changing.Shutdown(within(t, stopLimit)); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"disable-etcd", "disable-apiserver", "disable-controller-manager", "disable-scheduler"} {
			delete(changing.seed.RKE2, key)
		}
		step.change(&changing.seed)
		doc, err := changing.seed.Render()
		if err != nil {
			t.Fatal(err)
		}
		if err := changing.Reseed(cidata.Volume{UserData: doc}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		c.start(changing)
		c.rolesAre(client, map[string][]string{changing.name: step.roles})
		c.podsAre(client, map[string][]string{changing.name: step.pods})
		voters := c.servers()[:2]
		if step.voters == 3 {
			voters = c.servers()
		}
		c.votersAre(within(t, readyLimit), c.all["server-1"], voters...)
		if err := client.NodesReady(within(t, readyLimit), c.names()...); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: settled %.1f s after power-on", step.name, time.Since(began).Seconds())
		if step.voters == 2 {
			old, err := filepath.Glob(filepath.Join(the.dir, slug(t), changing.name, "state", "lib/rancher/rke2/server/db/etcd-old-*"))
			if err != nil || len(old) != 1 {
				t.Errorf("data put away: got %v, %v, want one folder", old, err)
			}
			if _, err := os.Stat(filepath.Join(the.dir, slug(t), changing.name, "state", "lib/rancher/rke2/server/db/etcd/member")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("etcd's data is in its place: %v", err)
			}
		}
		c.workloadStarted(client, began, changing)
		c.ensureWeb(client)
		c.answersFromEach(client, service)
	}
}

// rolesAre waits until nodes have exactly those roles.
func (c *cluster) rolesAre(client *kube.Client, want map[string][]string) {
	c.t.Helper()
	c.until("roles", func() error {
		for name, roles := range want {
			node, err := client.CoreV1().Nodes().Get(within(c.t, changeLimit), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			var have []string
			for label := range node.Labels {
				if role, ok := strings.CutPrefix(label, "node-role.kubernetes.io/"); ok {
					have = append(have, role)
				}
			}
			if slices.Sort(have); !slices.Equal(have, roles) {
				return fmt.Errorf("%s: got %v, want %v", name, have, roles)
			}
			voter := slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == "EtcdIsVoter" && c.Status == corev1.ConditionTrue })
			if voter != slices.Contains(roles, "etcd") {
				return fmt.Errorf("%s: its condition EtcdIsVoter is %v", name, voter)
			}
		}
		return nil
	})
}

// podsAre waits until exactly those static pods run on nodes, all Ready.
func (c *cluster) podsAre(client *kube.Client, want map[string][]string) {
	c.t.Helper()
	c.until("static pods", func() error {
		list, err := client.CoreV1().Pods("kube-system").List(within(c.t, changeLimit), metav1.ListOptions{})
		if err != nil {
			return err
		}
		have := map[string][]string{}
		for _, p := range list.Items {
			if p.Annotations[corev1.MirrorPodAnnotationKey] == "" {
				continue
			}
			ready := slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			})
			if _, ok := want[p.Spec.NodeName]; ok && !ready {
				return fmt.Errorf("%s is not Ready", p.Name)
			}
			have[p.Spec.NodeName] = append(have[p.Spec.NodeName], strings.TrimSuffix(p.Name, "-"+p.Spec.NodeName))
		}
		for node, pods := range want {
			if slices.Sort(have[node]); !slices.Equal(have[node], pods) {
				return fmt.Errorf("%s: got %v, want %v", node, have[node], pods)
			}
		}
		return nil
	})
}

// until looks again and again: of several objects together there is no watch.
func (c *cluster) until(what string, look func() error) {
	c.t.Helper()
	ctx := within(c.t, readyLimit)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		err := look()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.t.Fatalf("%s: %v", what, err)
		}
	}
}

// answers asks a supervisor as a server does, and wants a refusal.
func (c *cluster) answers(m *member, path, code, message string) {
	c.t.Helper()
	ask := map[string]func(access.Server) error{
		"/db/info": func(s access.Server) error { _, err := s.Members(within(c.t, changeLimit)); return err },
		"/v1-rke2/server-bootstrap": func(s access.Server) error {
			_, err := s.Fetch(within(c.t, changeLimit))
			return err
		},
	}[path]
	if err := ask(m.Supervisor()); err == nil || !strings.Contains(err.Error(), code) || !strings.Contains(err.Error(), message) {
		c.t.Errorf("%s of %s: got %v, want %s %s", path, m.name, err, code, message)
	}
}
