package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"keelson/node/config"
	"keelson/node/etcd"
	"keelson/node/etcdsnapshot/etcdtest"
	"keelson/node/nodeobject"
	"keelson/node/sequence"
	"keelson/node/token"
)

// site is servers in this process, each on a loopback address of its own: their supervisors and the real etcd, with the
// start that machines have. In place of kubelet and kube-apiserver there are the test and one set of objects.
type site struct {
	t    *testing.T // of the step that runs
	root *testing.T // what is made lasts as long as this
	ctx  context.Context
	api  *fake.Clientset
}

// box is a machine of the site, on or off.
type box struct {
	*site
	name    string
	address string
	server  *Server // of the last start
	console *bytes.Buffer
	stop    context.CancelFunc
	ended   chan error
}

// loopback is one of this process's own, so that two runs of the tests never meet: all use the servers' ports.
func loopback(last int) string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 64+pid%128, 1+pid/128%250, last)
}

func newSite(t *testing.T) *site {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return &site{t: t, root: t, ctx: ctx, api: fake.NewClientset()}
}

// newBox makes a machine with an empty disk. It joins the others' server, or begins a cluster with nil.
func (s *site) newBox(n int, name string, join *box, change func(*config.Config)) *box {
	s.t.Helper()
	b := &box{site: s, name: name, address: loopback(n)}
	own := netip.MustParseAddr(b.address)
	b.server = newServer(s.root, func(c *config.Config) {
		c.NodeName, c.NodeIP, c.AdvertiseAddress, c.Token = name, []netip.Addr{own}, own, clusterToken
		if join != nil {
			c.Server = join.url()
		}
		c.Etcd.Args = []string{
			"listen-client-urls=https://" + b.address + ":2379", "listen-peer-urls=https://" + b.address + ":2380",
			"listen-metrics-urls=http://" + b.address + ":2381", "listen-client-http-urls=https://" + b.address + ":2382",
			"heartbeat-interval=100", "election-timeout=1000", "log-level=fatal", "unsafe-no-fsync=true",
		}
		if change != nil {
			change(c)
		}
	})
	b.server.places.listen, b.server.places.etcd = b.address+":9345", b.address+":2379"
	s.root.Cleanup(b.cut)
	return b
}

func (b *box) url() string { return "https://" + b.address + ":9345" }

// on starts the machine, and returns what ends when the start has: nil when it is whole.
func (b *box) on() <-chan error {
	b.t.Helper()
	last := b.server
	b.console = new(bytes.Buffer)
	last.cfg.Console = b.console
	s, err := New(last.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	s.places, s.settings, s.log = last.places, last.settings, slog.New(slog.DiscardHandler)
	if err := os.RemoveAll(s.places.started); err != nil { // in memory
		b.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.ctx)
	b.server, b.stop, b.ended = s, stop, make(chan error, 1)
	whole := make(chan error, 2)
	go func() {
		err := s.run(ctx, b.steps(s), func() { whole <- nil })
		whole <- err
		b.ended <- err
	}()
	return whole
}

// steps are the server's own, but for those that are about kubelet, kube-apiserver and pods.
func (b *box) steps(s *Server) []sequence.Step {
	none := func(context.Context) error { return nil }
	instead := map[string]func(context.Context) error{
		"kubelet": func(context.Context) error { return runEtcd(s) },
		"apiserver": func(context.Context) error {
			s.client = b.api
			close(s.ready)
			return nil
		},
		"node object": func(ctx context.Context) error { return b.register(ctx, s) },
	}
	for _, name := range []string{"settings", "gate", "containerd", "controllers", "add-ons", "charts", "cloud controller", "endpoints", "snapshots", "node ready", "system pods", "renewal"} {
		instead[name] = none
	}
	steps := s.steps()
	for i := range steps {
		if run := instead[steps[i].Name]; run != nil {
			steps[i].Run = run
			delete(instead, steps[i].Name)
		}
	}
	if len(instead) > 0 {
		b.t.Errorf("not in the list: %v", instead)
	}
	return steps
}

// runEtcd runs what the static pod would, from the same file.
func runEtcd(s *Server) error {
	c, err := embed.ConfigFromFile(etcd.ConfigPath(s.settings.DataDir))
	if err != nil {
		return err
	}
	e, err := etcdtest.Embed(c)
	if err != nil {
		return err
	}
	s.background("etcd", func(ctx context.Context) error {
		<-ctx.Done()
		e.Server.HardStop() // nothing is handed over
		e.Close()
		return nil
	})
	return nil
}

// register makes the Node, as the kubelet and the server's last step do.
func (b *box) register(ctx context.Context, s *Server) error {
	nodes := b.api.CoreV1().Nodes()
	if _, err := nodes.Get(ctx, b.name, metav1.GetOptions{}); err == nil {
		return nil
	}
	_, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: b.name, UID: types.UID(s.member.Name), Labels: map[string]string{nodeobject.LabelEtcd: "true"},
		Annotations: map[string]string{nodeobject.AnnotationEtcdName: s.member.Name, nodeobject.AnnotationEtcdAddrs: s.member.Address},
	}}, metav1.CreateOptions{})
	return err
}

// cut ends everything of the machine.
func (b *box) cut() {
	if b.stop == nil {
		return
	}
	b.stop()
	b.stop = nil
	if err := <-b.ended; err != nil {
		b.t.Errorf("%s ended: %v", b.name, err)
	}
}

// together switches machines on and waits until all are whole.
func (s *site) together(boxes ...*box) {
	s.t.Helper()
	var all []<-chan error
	for _, b := range boxes {
		all = append(all, b.on())
	}
	for i, whole := range all {
		select {
		case err := <-whole:
			if err != nil {
				s.t.Fatalf("%s: %v", boxes[i].name, err)
			}
		case <-s.ctx.Done():
			s.t.Fatalf("%s does not come up; it says:\n%s", boxes[i].name, boxes[i].console)
		}
	}
}

// refused switches a machine on, and wants its start to end with an error that says all of words.
func (b *box) refused(words ...string) error {
	b.t.Helper()
	var err error
	select {
	case err = <-b.on():
	case <-b.ctx.Done():
		b.t.Fatalf("%s is not refused; it says:\n%s", b.name, b.console)
	}
	b.stop()
	b.stop = nil
	<-b.ended
	if err == nil {
		b.t.Errorf("%s was taken in", b.name)
		return nil
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			b.t.Errorf("%s: %q is not in %v", b.name, w, err)
		}
	}
	return err
}

// votersAre waits until etcd's members are exactly those, and all vote.
func (s *site) votersAre(boxes ...*box) {
	s.t.Helper()
	var want []string
	for _, b := range boxes {
		want = append(want, b.name)
	}
	slices.Sort(want)
	s.eventually(fmt.Sprintf("etcd's voters are %v", want), soon, func() bool {
		list, err := boxes[0].server.etcd.MemberList(s.ctx)
		if err != nil {
			return false
		}
		var got []string
		for _, m := range list.Members {
			if !m.IsLearner {
				got = append(got, etcd.NodeOf(m.Name))
			}
		}
		slices.Sort(got)
		return slices.Equal(got, want) && len(list.Members) == len(want)
	})
}

// Servers bound how often an address may ask: what asks them asks again after a second.
const (
	soon  = 20 * time.Millisecond
	later = time.Second
)

// eventually asks again until done, or until the site's time is over.
func (s *site) eventually(what string, every time.Duration, done func() bool) {
	s.t.Helper()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			s.t.Fatalf("%s: %v", what, s.ctx.Err())
		}
	}
}

// forget deletes a Node, as an operator does.
func (s *site) forget(name string) {
	s.t.Helper()
	if err := s.api.CoreV1().Nodes().Delete(s.ctx, name, metav1.DeleteOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// whole is the cluster's token with the hash of its authority.
func (b *box) whole() token.Secret {
	b.t.Helper()
	data, err := os.ReadFile(b.server.server("token"))
	if err != nil {
		b.t.Fatal(errors.Join(err, errors.New("the server has no token file")))
	}
	return token.Secret(strings.TrimSpace(string(data)))
}
