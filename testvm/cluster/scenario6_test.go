package cluster

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/testvm/cidata"
	"keelson/testvm/kube"
	"keelson/testvm/netns"
	"keelson/testvm/objectstore"
)

const bucket = "backups"

// A snapshot goes to an object store, all servers' disks are destroyed, one server restores it on an empty disk and
// the others join with empty ones; the agent is not touched. Then all servers stop at once and only one is to go on:
// it resets the cluster, and the others, which have their old data, follow it without a hand.
func TestScenario6Restore(t *testing.T) {
	c := newCluster(t)
	store, err := objectstore.Start(bucket)
	if err != nil {
		t.Fatal(err)
	}
	stop, err := c.lan.Share(store.Port())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	backs := func(more ...func(*cidata.CloudConfig)) func(*cidata.CloudConfig) {
		return func(doc *cidata.CloudConfig) {
			for key, value := range map[string]any{
				"etcd-s3": true, "etcd-s3-endpoint": fmt.Sprintf("%s:%d", netns.Gateway(), store.Port()), "etcd-s3-insecure": true,
				"etcd-s3-bucket": bucket, "etcd-s3-bucket-lookup-type": "path", "etcd-s3-access-key": "key", "etcd-s3-secret-key": "secret",
			} {
				doc.RKE2[key] = value
			}
			for _, m := range more {
				m(doc)
			}
		}
	}
	resets := func(snapshot string) func(*cidata.CloudConfig) {
		return func(doc *cidata.CloudConfig) {
			doc.RKE2["cluster-reset"] = true
			if snapshot != "" {
				doc.RKE2["cluster-reset-restore-path"] = snapshot
			}
		}
	}
	first := c.add("server-1", "server", 1, backs())
	c.start(first, c.add("server-2", "server", 2, backs(joins(1))), c.add("server-3", "server", 3, backs(joins(1))), c.add("agent-1", "agent", 4, joins(1)))
	client := c.client(first)
	c.whole(client)
	c.ensureWeb(client)
	note(t, client, "kept")
	snapshot := takeSnapshot(t, client, first.name, store)
	note(t, client, "after")

	cut(t, first)
	cut(t, c.all["server-2"])
	cut(t, c.all["server-3"])
	began := time.Now()
	first = c.anew(first, backs(resets(snapshot)))
	c.start(first, c.anew(c.all["server-2"], backs(joins(1))), c.anew(c.all["server-3"], backs(joins(1))))
	client = c.client(first)
	c.whole(client)
	c.workloadStarted(client, began, c.servers()...)
	t.Logf("restored, and all servers are back on empty disks, %.1f s after power-on", time.Since(began).Seconds())
	for name, want := range map[string]bool{"kept": true, "after": false} {
		if got := noted(t, client, name); got != want {
			t.Errorf("the object %q is there: got %t, want %t", name, got, want)
		}
	}
	c.answersFromEach(client, c.ensureWeb(client))

	// The setting is still there at the next start: nothing is reset a second time.
	note(t, client, "second life")
	cut(t, first)
	c.start(first)
	if _, err := first.Expect(within(t, readyLimit), "has been reset to this server before"); err != nil {
		t.Error(err)
	}
	client = c.client(first)
	c.whole(client)

	for _, s := range c.servers() {
		cut(t, s)
	}
	began = time.Now()
	c.reseed(first, backs(resets("")))
	c.start(first)
	if _, err := first.Expect(within(t, readyLimit), "the cluster is reset to this server"); err != nil {
		t.Fatal(err)
	}
	others := []*member{c.all["server-2"], c.all["server-3"]}
	c.start(others...)
	for _, m := range others {
		if _, err := m.Expect(within(t, readyLimit), "the cluster was reset .* without this server|was removed from the etcd cluster"); err != nil {
			t.Error(err)
		}
	}
	client = c.client(first)
	c.whole(client)
	c.workloadStarted(client, began, c.servers()...)
	t.Logf("reset on one server, and the others have followed with their old disks, %.1f s after power-on", time.Since(began).Seconds())
	if !noted(t, client, "kept") || !noted(t, client, "second life") {
		t.Error("the reset of a server's own data has lost objects")
	}
	c.answersFromEach(client, c.ensureWeb(client))
}

// workloadStarted waits until the workload's pods on machines run in containers younger than since: what the API says of
// them after a restore is as old as the snapshot.
func (c *cluster) workloadStarted(client *kube.Client, since time.Time, on ...*member) {
	c.t.Helper()
	ctx := within(c.t, readyLimit)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		pods := c.pods(client)
		missing := slices.IndexFunc(on, func(m *member) bool {
			statuses := pods[m.name].Status.ContainerStatuses
			return len(statuses) == 0 || !statuses[0].Ready || statuses[0].State.Running == nil || statuses[0].State.Running.StartedAt.Time.Before(since.Truncate(time.Second))
		})
		if missing < 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.t.Fatalf("the workload on %s has not started: %+v", on[missing].name, pods[on[missing].name].Status)
		}
	}
}

// reseed gives a machine that is off other settings.
func (c *cluster) reseed(m *member, change func(*cidata.CloudConfig)) {
	c.t.Helper()
	m.seed.RKE2 = map[string]any{"role": m.role, "token": clusterToken}
	change(&m.seed)
	doc, err := m.seed.Render()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := m.Reseed(cidata.Volume{UserData: doc}); err != nil {
		c.t.Fatal(err)
	}
}

// note makes an object that is found again, or not. Its name in the API has no blanks.
func note(t *testing.T, client *kube.Client, name string) {
	t.Helper()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: strings.ReplaceAll(name, " ", "-")}}
	if _, err := client.CoreV1().ConfigMaps("default").Create(within(t, changeLimit), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func noted(t *testing.T, client *kube.Client, name string) bool {
	t.Helper()
	_, err := client.CoreV1().ConfigMaps("default").Get(within(t, changeLimit), strings.ReplaceAll(name, " ", "-"), metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return err == nil
}

// takeSnapshot takes one as an operator does, and checks that the object store and the API have it.
func takeSnapshot(t *testing.T, client *kube.Client, node string, store *objectstore.Store) string {
	t.Helper()
	output, err := client.RunOnNode(within(t, changeLimit), workloadImage, node, "/usr/bin/node", "etcd-snapshot", "save", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var result struct{ Created []string }
	if err := json.Unmarshal([]byte(output), &result); err != nil || len(result.Created) == 0 {
		t.Fatalf("%v: %s", err, output)
	}
	name := result.Created[0]
	if objects, err := store.Names(bucket); err != nil || !slices.Contains(objects, name) {
		t.Fatalf("the object store has %v, %v; want %s", objects, err, name)
	}
	answer, err := client.CoreV1().RESTClient().Get().AbsPath("/apis/k3s.cattle.io/v1/etcdsnapshotfiles").DoRaw(within(t, changeLimit))
	if err != nil {
		t.Fatal(err)
	}
	type file struct {
		Spec   struct{ SnapshotName, Location string }
		Status struct{ ReadyToUse bool }
	}
	var files struct{ Items []file }
	if err := json.Unmarshal(answer, &files); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"file://", "s3://"} {
		if !slices.ContainsFunc(files.Items, func(f file) bool {
			return f.Spec.SnapshotName == name && strings.HasPrefix(f.Spec.Location, kind) && f.Status.ReadyToUse
		}) {
			t.Errorf("no ETCDSnapshotFile tells of %s at %s: %s", name, kind, answer)
		}
	}
	return name
}
