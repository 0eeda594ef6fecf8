package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"keelson/node/config"
	"keelson/node/etcd"
	"keelson/node/etcdsnapshot/etcdtest"
	"keelson/node/member"
	"keelson/node/supervisorclient"
)

// etcdAlone are the settings of a server of etcd alone.
func etcdAlone(c *config.Config) {
	c.DisableAPIServer, c.DisableControllerManager, c.DisableScheduler = true, true, true
}

// place is an address of the loopback network that is this test process's own.
func place(last int) string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 32+pid%32, 1+pid/32%250, last)
}

// node is a supervisor of the test's, with addresses of its own, and etcd where the kubelet would run it.
type node struct {
	*Server
	address string
	ended   chan error
	store   *embed.Etcd
}

// newNode makes a server at an address; its supervisor is there, and its own etcd too.
func newNode(t *testing.T, last int, change func(*config.Config)) *node {
	t.Helper()
	n := &node{address: place(last), ended: make(chan error, 1)}
	at := func(port int) string { return fmt.Sprintf("https://%s:%d", n.address, port) }
	n.Server = newServer(t, func(c *config.Config) {
		c.Token, c.NodeName, c.NodeIP = clusterToken, fmt.Sprintf("n-%d", last), []netip.Addr{netip.MustParseAddr(n.address)}
		c.Etcd.Args = []string{
			"listen-client-urls=" + at(2379), "listen-peer-urls=" + at(2380), "listen-metrics-urls=http://" + n.address + ":2381",
			"listen-client-http-urls=" + at(2382), "heartbeat-interval=100", "election-timeout=1000", "log-level=fatal", "unsafe-no-fsync=true",
		}
		if change != nil {
			change(c)
		}
	})
	n.places.listen, n.places.etcd, n.places.api = n.address+":9345", n.address+":2379", n.address+":6443"
	n.cfg.Console = &syncBuffer{writes: make(chan struct{}, 1)}
	return n
}

func (n *node) url() string { return "https://" + n.places.listen }

func (n *node) said() string {
	console := n.cfg.Console.(*syncBuffer)
	console.mu.Lock()
	defer console.mu.Unlock()
	return console.text.String()
}

// start goes through the list, without the steps that need a kubelet, until the listener answers. etcd runs in the
// test's process.
func (n *node) start(ctx context.Context, t *testing.T) {
	t.Helper()
	ready := make(chan struct{})
	steps := n.steps()
	wanted := []string{
		"folders", "system images", "roles", "reset", "cluster", "balancer of kube-apiservers", "secrets", "certificates", "token files",
		"stale pods", "balancer of etcd", "etcd member", "etcd pod", "apiserver pod", "kubelet", "listener", "nodes", "others' etcd", "etcd",
		"others' kube-apiservers", "token", "bootstrap record", "joining", "record",
	}
	for i := range steps {
		switch {
		case steps[i].Name == "settings": // newServer has resolved them
			steps[i].Skip = true
		case steps[i].Name == "kubelet" && !n.cfg.Settings.DisableEtcd:
			steps[i].Run = func(context.Context) error { return n.runEtcd(t) }
		case steps[i].Name == "kubelet", !slices.Contains(wanted, steps[i].Name):
			steps[i].Skip = true
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() { n.ended <- n.run(ctx, steps, func() { close(ready) }) }()
	stop := func() {
		cancel()
		<-n.ended
		n.ended <- nil
	}
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-n.ended:
		n.ended <- err
		t.Fatalf("%s: %v\n%s", n.settings.NodeName, err, n.said())
	case <-time.After(60 * time.Second):
		t.Fatalf("%s does not come up:\n%s", n.settings.NodeName, n.said())
	}
}

// runEtcd is the kubelet's part: it runs the pod that was written.
func (n *node) runEtcd(t *testing.T) error {
	if _, err := os.Stat(n.agent("pod-manifests", "etcd.yaml")); err != nil {
		return err
	}
	c, err := embed.ConfigFromFile(etcd.ConfigPath(n.settings.DataDir))
	if err != nil {
		return err
	}
	if n.store, err = etcdtest.Embed(c); err == nil {
		t.Cleanup(n.kill)
	}
	return err
}

// kill ends etcd as the loss of its machine does.
func (n *node) kill() {
	if n.store != nil {
		n.store.Server.HardStop()
		n.store.Close()
		n.store = nil
	}
}

// ask asks a supervisor as a server does.
func ask(t *testing.T, of, by *node) *supervisorclient.Client {
	t.Helper()
	client, err := by.askServer(t.Context(), of.url())
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(40 * time.Second); !done(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal(what)
		}
	}
}

// A cluster begins with etcd alone. A control plane without etcd joins it, publishes itself, and outlives the member
// that it uses once there are others.
func TestServersOfOneRole(t *testing.T) {
	ctx := t.Context()
	store := newNode(t, 1, etcdAlone)
	store.start(ctx, t)
	eventually(t, "nobody is told what is waited for", func() bool {
		return strings.Contains(store.said(), "waiting for a server with a control plane to join at https://"+store.address+":9345")
	})
	if _, err := os.Stat(store.agent("pod-manifests", "kube-apiserver.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("etcd alone has a kube-apiserver: %v", err)
	}
	local, err := os.ReadFile(store.agent("kubelet.kubeconfig"))
	if err != nil || !bytes.Contains(local, []byte("https://"+apiAddress)) {
		t.Errorf("the kubelet's kubeconfig does not lead to the load balancer: %v\n%s", err, local)
	}

	plane := newNode(t, 2, func(c *config.Config) { c.Server, c.DisableEtcd = store.url(), true })
	// Certificates of etcd's servers hold for 127.0.0.1 alone beside their own addresses.
	plane.places.etcd = freePort(t)
	plane.start(ctx, t)
	if _, err := os.Stat(plane.agent("pod-manifests", "etcd.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a server without etcd has a pod of it: %v", err)
	}
	if _, err := os.Stat(plane.agent("pod-manifests", "kube-apiserver.yaml")); err != nil {
		t.Errorf("no kube-apiserver: %v", err)
	}
	t.Run("documents", func(t *testing.T) { documents(t, store, plane) })

	// What kube-apiserver's step publishes reaches etcd's server, its load balancer and who asks there.
	addresses := make(chan []string, 1)
	addresses <- []string{plane.address + ":6443"}
	close(addresses)
	if err := member.Publish(ctx, plane.client(), addresses, plane.log); err != nil {
		t.Fatal(err)
	}
	eventually(t, "where kube-apiserver is did not reach etcd's server", func() bool {
		list, err := store.apiServers(ctx)
		known := store.balancer.Servers()
		return err == nil && slices.Equal(list, []string{plane.address + ":6443"}) && len(known) == 1 && known[0].Address == list[0]
	})

	// More etcd servers join, by the first; the server without etcd learns of them.
	other := newNode(t, 3, func(c *config.Config) { etcdAlone(c); c.Server = store.url() })
	other.start(ctx, t)
	third := newNode(t, 4, func(c *config.Config) { etcdAlone(c); c.Server = store.url() })
	third.start(ctx, t)
	if got := strings.Count(other.said(), "etcd ready"); got != 1 {
		t.Errorf("the second etcd server: got %q", other.said())
	}
	voters, err := member.Voters(ctx, plane.client())
	if err != nil || len(voters) != 3 {
		t.Fatalf("got voters %v, %v, want 3", voters, err)
	}
	eventually(t, "the load balancer does not know the new members", func() bool { return len(plane.etcds.Servers()) == 3 })

	active := plane.etcds.Servers()[0]
	for _, n := range []*node{store, other, third} {
		if n.places.etcd == active.Address {
			n.kill()
		}
	}
	began := time.Now()
	eventually(t, "the server without etcd writes no more", func() bool {
		ask, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := plane.client().Put(ask, "after", "x")
		return err == nil
	})
	t.Logf("etcd behind the load balancer takes writes %s after the death of the member that it used", time.Since(began).Round(time.Millisecond))
}

func (n *node) client() *clientv3.Client { return n.Server.etcd }

// documents are what servers of one role answer.
func documents(t *testing.T, store, plane *node) {
	for _, c := range []struct {
		of   *node
		want [4]bool
	}{
		{store, [4]bool{false, true, true, true}},
		{plane, [4]bool{true, false, false, false}},
	} {
		content, err := ask(t, c.of, plane).Config(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var d document
		if err := json.Unmarshal(content, &d); err != nil {
			t.Fatal(err)
		}
		if got := [4]bool{d.DisableETCD, d.DisableAPIServer, d.DisableControllerManager, d.DisableScheduler}; got != c.want {
			t.Errorf("%s: got %v, want %v", c.of.settings.NodeName, got, c.want)
		}
	}
	of := ask(t, plane, store)
	for path, err := range map[string]error{
		"/db/info":                  second(of.DBInfo(t.Context())),
		"/v1-rke2/server-bootstrap": second(of.ServerBootstrap(t.Context())),
	} {
		var answer *supervisorclient.Error
		if !errors.As(err, &answer) || answer.Code != http.StatusBadRequest || !strings.Contains(answer.Message, "disabled") {
			t.Errorf("%s of a server without etcd: got %v, want 400 and the reason", path, err)
		}
	}
	if members, err := ask(t, store, plane).DBInfo(t.Context()); err != nil || len(members) != 1 {
		t.Errorf("/db/info of etcd's server: got %v, %v", members, err)
	}
	// A server that would join by the one without etcd is told by whom it can.
	late := newNode(t, 9, func(c *config.Config) { c.Server = plane.url() })
	if err := errors.Join(late.makeFolders(t.Context()), late.loadImages(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := late.joinCluster(t.Context()); err == nil || !strings.Contains(err.Error(), "set server to such a one") {
		t.Errorf("joining by a server without etcd: got %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// A server without etcd that has joined starts again without its join server, with what it remembers.
func TestServerWithoutEtcdComesBack(t *testing.T) {
	store := newNode(t, 21, nil)
	store.start(t.Context(), t)
	plane := newNode(t, 22, func(c *config.Config) { c.Server, c.DisableEtcd = store.url(), true })
	plane.places.etcd = freePort(t)
	t.Run("first", func(t *testing.T) {
		plane.start(t.Context(), t)
		eventually(t, "the list of members is not kept", func() bool {
			content, err := os.ReadFile(plane.etcdList())
			return err == nil && strings.Contains(string(content), store.address+":2379")
		})
	})
	again := newNode(t, 22, func(c *config.Config) {
		c.Server, c.DisableEtcd, c.DataDir = "https://"+place(99)+":9345", true, plane.settings.DataDir
		c.WriteKubeconfig = plane.settings.WriteKubeconfig
	})
	again.places.etcd = freePort(t)
	again.start(t.Context(), t)
	if !strings.Contains(again.said(), "goes on with what it knows") {
		t.Errorf("the console does not say that the join server is not there: %q", again.said())
	}
	if _, err := member.Voters(t.Context(), again.client()); err != nil {
		t.Error(err)
	}
}

// freePort is an address on 127.0.0.1, for which certificates hold, that nobody uses.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
