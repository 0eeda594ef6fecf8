package clusterreset

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"keelson/node/nodeobject"
)

func epoch(n int64) Epoch {
	if n == 0 {
		return Epoch{}
	}
	return Epoch{Number: n, ID: fmt.Sprintf("%032x", n)}
}

func TestDecide(t *testing.T) {
	info := func(cluster string, n int64) Info { return Info{Cluster: cluster, Epoch: epoch(n)} }
	other := info("bb", 5)
	other.Epoch.ID = strings.Repeat("e", 32)
	for _, c := range []struct {
		name   string
		local  Local
		remote Remote
		want   Verdict
		says   string
	}{
		{"no data", Local{}, Remote{Proven: true, Info: info("bb", 5)}, Keep, "no data"},
		{"nobody answers", Local{Cluster: 0xaa}, Remote{}, Keep, "heard"},
		{"an impostor says so", Local{Cluster: 0xaa}, Remote{Proven: false, Info: info("bb", 5)}, Keep, "heard"},
		{"RKE2 answers", Local{Cluster: 0xaa}, Remote{Proven: true}, Keep, "version"},
		{"nonsense answers", Local{Cluster: 0xaa}, Remote{Proven: true, Info: info("xyz", 5)}, Keep, "version"},
		{"same cluster", Local{Cluster: 0xaa}, Remote{Proven: true, Info: info("aa", 0)}, Keep, "same cluster"},
		{"same cluster, file is behind", Local{Cluster: 0xaa, Epoch: epoch(4)}, Remote{Proven: true, Info: info("aa", 5)}, Keep, "same cluster"},
		{"another cluster without a reset", Local{Cluster: 0xaa}, Remote{Proven: true, Info: info("bb", 0)}, Keep, "no reset"},
		{"another cluster of the same epoch", Local{Cluster: 0xaa, Epoch: epoch(5)}, Remote{Proven: true, Info: info("bb", 5)}, Keep, "no reset"},
		{"the other is behind", Local{Cluster: 0xaa, Epoch: epoch(6)}, Remote{Proven: true, Info: info("bb", 5)}, Keep, "before the reset"},
		{"the other was never reset", Local{Cluster: 0xaa, Epoch: epoch(6)}, Remote{Proven: true, Info: info("bb", 0)}, Keep, "before the reset"},
		{"reset before this start", Local{Cluster: 0xaa}, Remote{Proven: true, Info: info("bb", 5)}, Rejoin, "without this server"},
		{"a second reset", Local{Cluster: 0xaa, Epoch: epoch(4)}, Remote{Proven: true, Info: info("bb", 5)}, Rejoin, "without this server"},
		{"runs without quorum", Local{Cluster: 0xaa, Running: true}, Remote{Proven: true, Info: info("bb", 5)}, Rejoin, "without this server"},
		{"serves since before the reset", Local{Cluster: 0xaa, Running: true, Quorum: true, Served: time.Unix(4, 0)}, Remote{Proven: true, Info: info("bb", 5)}, Split, "restart"},
		{"serves, nobody knows since when", Local{Cluster: 0xaa, Running: true, Quorum: true}, Remote{Proven: true, Info: info("bb", 5)}, Split, "restart"},
		{"came up beside the reset", Local{Cluster: 0xaa, Running: true, Quorum: true, Served: time.Unix(5, 0)}, Remote{Proven: true, Info: info("bb", 5)}, Rejoin, "without this server"},
		{"two resets", Local{Cluster: 0xaa, Epoch: epoch(5)}, Remote{Proven: true, Info: other}, Conflict, "neither knows"},
	} {
		got, why := Decide(c.local, c.remote)
		if got != c.want || !strings.Contains(why, c.says) {
			t.Errorf("%s: got %v (%s), want %v with %q", c.name, got, why, c.want, c.says)
		}
	}
}

// Whatever is told: data is only put aside for a proven server of another cluster with a later epoch, and never under
// a quorum that is older than that.
func FuzzDecide(f *testing.F) {
	f.Add(uint64(1), int64(1), true, true, true, "b", int64(2), int64(1))
	f.Fuzz(func(t *testing.T, cluster uint64, own int64, running, quorum, proven bool, remote string, their, served int64) {
		l := Local{Cluster: cluster, Epoch: Epoch{Number: own}, Running: running, Quorum: quorum, Served: time.Unix(served, 0)}
		r := Remote{Proven: proven, Info: Info{Cluster: remote, Epoch: Epoch{Number: their}}}
		if got, _ := Decide(l, r); got == Rejoin {
			if !proven || their <= own || cluster == 0 || running && quorum && served < their || fmt.Sprintf("%x", cluster) == remote {
				t.Errorf("%+v gives its data up for %+v", l, r)
			}
		}
	})
}

func TestWatch(t *testing.T) {
	answer := Remote{}
	var failure error
	quorum := true
	run := func(t *testing.T, after func(step int)) error {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		asked := 0
		return Watch(ctx, time.Minute,
			func(context.Context) (Local, error) {
				return Local{Cluster: 1, Running: true, Quorum: quorum}, nil
			},
			func(context.Context) (Remote, error) {
				asked++
				after(asked)
				if asked > 10 {
					cancel()
				}
				return answer, failure
			}, slog.New(slog.DiscardHandler))
	}
	synctest.Test(t, func(t *testing.T) {
		if err := run(t, func(int) { failure = errors.New("down") }); err != nil {
			t.Errorf("a join target that is down: %v", err)
		}
	})
	failure = nil
	answer = Remote{Proven: true, Info: Info{Cluster: "2", Epoch: epoch(3)}}
	synctest.Test(t, func(t *testing.T) {
		if err := run(t, func(int) {}); err != nil {
			t.Errorf("with a quorum: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		err := run(t, func(n int) { quorum = n < 5 })
		if !errors.Is(err, ErrRejoin) || !strings.Contains(err.Error(), "epoch 3") {
			t.Errorf("when the quorum is lost: %v", err)
		}
	})
}

func TestEpochFiles(t *testing.T) {
	dir := t.TempDir()
	if e, err := LoadEpoch(dir); err != nil || e != (Epoch{}) {
		t.Errorf("without a file: %+v, %v", e, err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "server/db"), 0o700); err != nil {
		t.Fatal(err)
	}
	first := Epoch{}.Next(time.Unix(100, 0))
	second := first.Next(time.Unix(50, 0))
	if first.Number != 100 || second.Number != 101 || first.ID == second.ID {
		t.Errorf("got %+v, %+v", first, second)
	}
	if newer(first, second) != second || newer(second, first) != second {
		t.Error("newer takes the older")
	}
	if err := saveEpoch(dir, second); err != nil {
		t.Fatal(err)
	}
	if e, err := LoadEpoch(dir); err != nil || e != second {
		t.Errorf("got %+v, %v", e, err)
	}
	if err := saveEpoch(dir, Epoch{}); err != nil {
		t.Fatal(err)
	}
	if e, err := LoadEpoch(dir); err != nil || e != (Epoch{}) {
		t.Errorf("got %+v, %v", e, err)
	}
	put(t, epochPath(dir), `{"number":1}`)
	if _, err := LoadEpoch(dir); err == nil {
		t.Error("half an epoch was taken")
	}
}

func FuzzParseEpoch(f *testing.F) {
	f.Add(epoch(7).encode())
	f.Add([]byte(`{"number":-1,"id":"00000000000000000000000000000000"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ParseEpoch(data)
		if err != nil {
			return
		}
		if again, err := ParseEpoch(e.encode()); err != nil || again != e || e.Number <= 0 {
			t.Errorf("%s: %+v becomes %+v, %v", data, e, again, err)
		}
	})
}

func TestFinish(t *testing.T) {
	dir := t.TempDir()
	node := func(name string, labels ...string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
		for _, l := range labels {
			n.Labels[l] = "true"
		}
		return n
	}
	secret := func(name string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name}}
	}
	all := []runtime.Object{
		node("cp-1", nodeobject.LabelEtcd, nodeobject.LabelControlPlane), node("cp-2", nodeobject.LabelControlPlane), node("etcd-3", nodeobject.LabelEtcd), node("worker-1"),
		secret("cp-1.node-password.rke2"), secret("etcd-3.node-password.rke2"), secret("worker-1.node-password.rke2"), secret("cp-2"),
	}
	client := fake.NewClientset(all...)
	ctx := context.Background()
	if pending, err := Pending(dir); err != nil || pending {
		t.Errorf("without a flag: %v, %v", pending, err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "server/db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := (flag{Done: true}).save(dir); err != nil {
		t.Fatal(err)
	}
	for _, keep := range []bool{true, false} {
		if err := Finish(ctx, client, dir, "cp-1", keep); err != nil {
			t.Fatal(err)
		}
		if pending, err := Pending(dir); err != nil || pending != keep {
			t.Errorf("keep %v: pending %v, %v", keep, pending, err)
		}
	}
	left, err := client.CoreV1().Secrets("kube-system").List(ctx, metav1.ListOptions{})
	if err != nil || len(left.Items) != 2 {
		t.Errorf("left %+v, %v; want the agent's and the foreign one", left.Items, err)
	}
}
