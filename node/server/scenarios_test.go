package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/node/loadbalancer"
	"keelson/node/member"
	"keelson/node/supervisorclient"
	"keelson/node/token"
	"keelson/node/trust"
)

// TestTogether is what of scenarios 1, 2, 4 and 5 needs no kubelet: several supervisors in one process, with the real
// etcd, over loopback. (The partition of scenario 3 is in node/member, where every raft connection goes through the
// test.)
func TestTogether(t *testing.T) {
	s := newSite(t)
	a := s.newBox(1, "cp-1", nil, nil)
	b, c := s.newBox(2, "cp-2", a, nil), s.newBox(3, "cp-3", a, nil)
	all := []*box{a, b, c}
	step := func(name string, run func(t *testing.T)) {
		began := time.Now()
		if !t.Run(name, func(t *testing.T) {
			s.t = t
			run(t)
		}) {
			t.FailNow() // the others build on it
		}
		s.t = t
		t.Logf("%s: %.1f s", name, time.Since(began).Seconds())
	}
	var agent *protocolAgent
	step("three servers and an agent, started together", func(t *testing.T) {
		s.together(all...)
		s.votersAre(all...)
		agent = s.newAgent("w-1", all...)
		agent.joins(t)
	})
	step("each server is lost in turn", func(*testing.T) { s.losses(agent, all) })
	step("all servers are lost", func(t *testing.T) {
		for _, b := range all {
			b.cut()
		}
		s.together(all...)
		s.votersAre(all...)
		agent.joins(t)
	})
	step("names are held to their machines", func(t *testing.T) {
		s.newBox(4, "cp-3", a, nil).refused(member.ErrDuplicateName.Error(), "kubectl delete node cp-3")
		other := s.newAgent("w-1", b)
		if err := other.join(a); !errors.Is(err, supervisorclient.ErrForbidden) {
			t.Errorf("another machine by the name of a node: got %v, want it to be refused", err)
		}
		if _, err := s.api.CoreV1().Nodes().Create(s.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "w-1"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		s.forget("w-1")
		s.eventually("the name is free", later, func() bool { return other.join(a) == nil })
	})
	step("a server is replaced", func(t *testing.T) {
		c.cut()
		s.forget("cp-3")
		s.votersAre(a, b)
		c = s.newBox(3, "cp-3", b, nil)
		s.together(c)
		s.votersAre(a, b, c)
	})
	step("a removed server comes back with its old disk", func(t *testing.T) {
		b.cut()
		s.forget("cp-2")
		s.votersAre(a, c)
		s.together(b)
		s.votersAre(a, b, c)
	})
	step("the first server is replaced", func(t *testing.T) {
		a.cut()
		s.forget("cp-1")
		s.votersAre(b, c)
		a = s.newBox(1, "cp-1", b, nil)
		s.together(a)
		s.votersAre(a, b, c)
	})
	step("refusals", func(*testing.T) { s.refusals(a, b, c) })
}

// losses kills each server under a writer at another and an agent that asks by way of its load balancer.
func (s *site) losses(w *protocolAgent, all []*box) {
	for i, dead := range all {
		left := []*box{all[(i+1)%3], all[(i+2)%3]}
		writer := left[0].server.etcd
		before := s.raise(writer)
		dead.cut()
		began := time.Now()
		s.eventually("an agent is answered", later, func() bool { return w.ask() == nil })
		asked := time.Since(began)
		after := s.raise(writer)
		s.t.Logf("without %s: an agent is answered after %.1f s, a write after %.1f s", dead.name, asked.Seconds(), time.Since(began).Seconds())
		if took := time.Since(began); took > 15*time.Second {
			s.t.Errorf("without %s: writes paused %s", dead.name, took)
		}
		if after != before+1 {
			s.t.Errorf("without %s: the number was %d and became %d", dead.name, before, after)
		}
		s.together(dead)
		s.votersAre(all...)
		if got := s.read(dead.server.etcd); got != after {
			s.t.Errorf("%s is back with %d, want %d", dead.name, got, after)
		}
	}
}

// raise raises a number in etcd by one with a compare-and-swap, as often as it takes to be told so.
func (s *site) raise(client *clientv3.Client) (n int) {
	s.t.Helper()
	s.eventually("a write succeeds", soon, func() bool {
		ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
		defer cancel()
		have, err := client.Get(ctx, "register")
		if err != nil {
			return false
		}
		revision := int64(0)
		if n = 1; len(have.Kvs) > 0 {
			was, err := strconv.Atoi(string(have.Kvs[0].Value))
			if err != nil {
				s.t.Fatal(err)
			}
			n, revision = was+1, have.Kvs[0].ModRevision
		}
		done, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision("register"), "=", revision)).Then(clientv3.OpPut("register", strconv.Itoa(n))).Commit()
		return err == nil && done.Succeeded
	})
	return n
}

func (s *site) read(client *clientv3.Client) int {
	s.t.Helper()
	have, err := client.Get(s.ctx, "register")
	if err != nil || len(have.Kvs) != 1 {
		s.t.Fatalf("got %v, %v", have, err)
	}
	n, err := strconv.Atoi(string(have.Kvs[0].Value))
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// protocolAgent speaks an agent's protocol by way of its load balancer.
type protocolAgent struct {
	*site
	node     supervisorclient.Node
	dir      string
	balancer *loadbalancer.Balancer
	client   *supervisorclient.Client
}

func (s *site) newAgent(name string, servers ...*box) *protocolAgent {
	s.t.Helper()
	balancer, err := loadbalancer.New(loadbalancer.Config{Name: name, Listen: "127.0.0.1:0"})
	if err != nil {
		s.t.Fatal(err)
	}
	var list []string
	for _, b := range servers {
		list = append(list, net.JoinHostPort(b.address, "9345"))
	}
	balancer.SetServers(list)
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan error, 1)
	go func() { ended <- balancer.Run(ctx) }()
	s.root.Cleanup(func() {
		cancel()
		<-ended
	})
	password := make([]byte, 8)
	_, _ = rand.Read(password)
	return &protocolAgent{
		site: s, dir: s.root.TempDir(), balancer: balancer,
		node: supervisorclient.Node{Name: name, Password: token.Secret(fmt.Sprintf("%x", password)), Addresses: []netip.Addr{netip.MustParseAddr("10.0.2.200")}},
	}
}

func (w *protocolAgent) trust(server string, secret token.Secret, change func(*trust.Config)) (trust.Access, error) {
	c := trust.Config{Server: server, Token: secret, User: token.UserNode, PinFile: filepath.Join(w.dir, "pin"), Log: log()}
	if change != nil {
		change(&c)
	}
	return trust.Validate(w.ctx, c)
}

// joins goes through the join by way of the load balancer.
func (w *protocolAgent) joins(t *testing.T) {
	t.Helper()
	access, err := w.trust("https://"+w.balancer.Address(), clusterToken, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.client = supervisorclient.New(access, nil)
	w.root.Cleanup(w.client.Close)
	if err := w.certificates(w.client); err != nil {
		t.Fatal(err)
	}
}

// join asks one server.
func (w *protocolAgent) join(b *box) error {
	access, err := w.trust(b.url(), clusterToken, nil)
	if err != nil {
		return err
	}
	client := supervisorclient.New(access, nil)
	defer client.Close()
	return w.certificates(client)
}

func (w *protocolAgent) certificates(client *supervisorclient.Client) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if _, err := client.Config(w.ctx); err != nil {
		return err
	}
	for _, kind := range supervisorclient.Kinds() {
		if _, err := client.Sign(w.ctx, kind, w.node, key); err != nil {
			return err
		}
	}
	return nil
}

// ask is any question of an agent that has joined.
func (w *protocolAgent) ask() error {
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	_, err := w.client.Config(ctx)
	return err
}
