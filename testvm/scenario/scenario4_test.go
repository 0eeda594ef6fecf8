package scenario

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/testvm/kube"
	"keelson/testvm/machine"
	"keelson/testvm/qemu"
)

// Power cut at a random moment of the first boot, and again under load: every
// time the next boot gets to Ready with every acknowledged object there.
func TestScenario4PowerCut(t *testing.T) {
	needVM(t)
	m := newMachine(t, qemu.UEFI, nil)
	span := the.ready // how long a first boot takes here, if one was seen
	if span == 0 {
		span = 2 * time.Minute
	}
	for range *flagCuts {
		start(t, m)
		cutAfter(t, m, time.Duration(the.random.Int64N(int64(span))))
	}
	start(t, m)
	c := becomesReady(t, m)
	acknowledged := &record{}
	for cut := range *flagCuts {
		end := load(t, c, fmt.Sprintf("cut-%d", cut), acknowledged)
		cutAfter(t, m, time.Duration(the.random.Int64N(int64(30*time.Second))))
		end()
		start(t, m)
		c = becomesReady(t, m)
		checkRecord(t, c, acknowledged)
	}
	systemReady(t, c)
}

// cutAfter takes the power away when the time has come. It is the one wait by
// the clock: the moment must not hang on anything that the guest does.
func cutAfter(t *testing.T, m *machine.Machine, after time.Duration) {
	t.Helper()
	if !cutUnlessEnded(t, m, after) {
		t.Fatalf("the machine ended before the power cut; its last lines:\n%s", m.Console().Tail(30))
	}
}

// cutUnlessEnded is cutAfter for a machine that may end by itself before.
func cutUnlessEnded(t *testing.T, m *machine.Machine, after time.Duration) bool {
	t.Helper()
	t.Logf("power cut %.3f s from now", after.Seconds())
	moment := time.NewTimer(after)
	defer moment.Stop()
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		m.Ended(ctx)
		close(ended)
	}()
	select {
	case <-moment.C:
	case <-ended:
		return false
	}
	cancel()
	<-ended
	if err := m.PowerCut(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	return true
}

// record are the objects whose creation the apiserver has acknowledged.
type record struct {
	mu    sync.Mutex // guards names
	names []string
}

func (r *record) add(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names = append(r.names, name)
}

// writers at once, as a busy cluster has them.
const writers = 4

// load writes objects until end is called, and records those acknowledged.
func load(t *testing.T, c *kube.Client, prefix string, r *record) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	first := make(chan struct{})
	var once sync.Once
	for w := range writers {
		group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				name := fmt.Sprintf("%s-%d-%d", prefix, w, n)
				_, err := c.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{
					ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"name": name},
				}, metav1.CreateOptions{})
				if err != nil {
					return // the power is gone; what was not acknowledged may be there or not
				}
				r.add(name)
				once.Do(func() { close(first) })
			}
		})
	}
	select { // the moment counts from when there is a load
	case <-first:
	case <-within(t, changeLimit).Done():
		cancel()
		t.Fatal("no object was acknowledged")
	}
	return func() {
		cancel()
		group.Wait()
	}
}

func checkRecord(t *testing.T, c *kube.Client, r *record) {
	t.Helper()
	list, err := c.CoreV1().ConfigMaps("default").List(within(t, changeLimit), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]string{}
	for _, o := range list.Items {
		there[o.Name] = o.Data["name"]
	}
	lost := 0
	for _, name := range r.names {
		if there[name] != name {
			lost++
			t.Errorf("object %s was acknowledged before the power cut: got %q after it", name, there[name])
		}
	}
	t.Logf("%d acknowledged objects, %d of them lost", len(r.names), lost)
}
