package agent

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keelson/node/config"
	"keelson/node/loadbalancer"
	"keelson/node/pki"
	"keelson/node/sequence"
	"keelson/node/supervisorclient"
	"keelson/node/trust"
	"keelson/node/worker"
)

func TestGateHolds(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, _ := m.start(t, c, nil)
	if err := steps(t, within(t), a, joining()...); err != nil {
		t.Fatal(err)
	}
	c.set(func() { c.notReady = 4 })
	if err := steps(t, within(t), a, "gate"); err != nil {
		t.Fatal(err)
	}
	c.set(func() {
		if c.notReady != 0 {
			t.Errorf("the gate opened %d answers early", c.notReady)
		}
	})
	if got := strings.Count(m.console.String(), "waiting: the control plane: "); got != 1 {
		t.Errorf("the reason stands on the console %d times, want once:\n%s", got, m.console)
	}
}

func TestVersions(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, _ := m.start(t, c, nil)
	if err := steps(t, within(t), a, append(joining(), "versions")...); err != nil {
		t.Fatal(err)
	}
	c.set(func() { c.version = "v1.36.1+rke2r1" })
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- a.checkVersion(ctx) }()
	await(t, ctx, "the console", func() bool { return strings.Contains(m.console.String(), "agents are never newer than servers") })
	c.set(func() { c.version = "v1.38.0" }) // somebody updates the servers
	if err := <-ended; err != nil {
		t.Errorf("got %v", err)
	}
}

func TestRenewal(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, _ := m.start(t, c, nil)
	if err := steps(t, within(t), a, append(joining(), "kube-proxy")...); err != nil {
		t.Fatal(err)
	}
	pod := func() string { return string(read(t, a.agent("pod-manifests", "kube-proxy.yaml"))) }
	first, key := pod(), read(t, a.agent("client-kubelet.key"))
	pause, err := a.renew(t.Context())
	if err != nil || pause != lookEvery || c.count("client-kube-proxy") != 1 {
		t.Errorf("nothing is due: %v, %v, %d certificates", pause, err, c.count("client-kube-proxy"))
	}
	if a.isDue() {
		t.Error("a new certificate is due")
	}
	// Two thirds of a year later.
	var ahead atomic.Int64
	a.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	ahead.Store(int64(250 * 24 * time.Hour))
	if !a.isDue() {
		t.Error("an old certificate is not due")
	}
	if _, err := a.renew(t.Context()); err != nil || c.count("client-kube-proxy") != 2 || c.count("serving-kubelet") != 2 {
		t.Errorf("they are due: %v, %d certificates of kube-proxy", err, c.count("client-kube-proxy"))
	}
	if pod() == first {
		t.Error("kube-proxy's pod still has the old certificate mounted")
	}
	if !bytes.Equal(key, read(t, a.agent("client-kubelet.key"))) {
		t.Error("the key changed")
	}
	c.servers[0].kill()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // a load balancer holds who asks
	defer cancel()
	if pause, err := a.renew(ctx); err == nil || pause != lookAgain {
		t.Errorf("without a server: %v, %v", pause, err)
	}
}

// The cluster's authorities are replaced while the agent runs; it moves over by itself.
func TestAuthorityIsReplaced(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, _ := m.start(t, c, func(s *config.Config) { s.Token = agentPassword })
	if err := steps(t, within(t), a, append(joining(), "kube-proxy")...); err != nil {
		t.Fatal(err)
	}
	c.set(func() {
		for _, name := range []string{"client-ca", "server-ca"} {
			bundle, key, err := pki.Succeed(read(t, c.file(name+".crt")), read(t, c.file(name+".key")), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.WriteFile(c.file(name+".crt"), bundle, 0o600), os.WriteFile(c.file(name+".key"), key, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	})
	if _, err := a.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"client-ca.crt", "server-ca.crt"} {
		if !bytes.Equal(read(t, a.agent(name)), read(t, c.file(name))) {
			t.Errorf("%s is the old one", name)
		}
	}
	for _, kind := range supervisorclient.Kinds() {
		if got := c.count(string(kind)); got != 2 {
			t.Errorf("%s was issued %d times, want 2", kind, got)
		}
	}
	if _, err := a.renew(t.Context()); err != nil || c.count("client-kubelet") != 2 {
		t.Errorf("the next look: %v, and %d certificates", err, c.count("client-kubelet"))
	}
	if err := a.trustServer(within(t)); err != nil {
		t.Errorf("the new authority is not trusted: %v", err)
	}
}

func TestPersist(t *testing.T) {
	m := newMachine(t)
	a, _ := m.start(t, newCluster(t, 1), nil)
	errs := []error{supervisorclient.ErrNotReady, errors.New("odd: 127.0.0.1:5->h"), supervisorclient.ErrNotReady, errors.New("odd: 127.0.0.1:6->h"), nil}
	err := a.persist(within(t), "it", func(context.Context) error {
		err := errs[0]
		errs = errs[1:]
		return err
	})
	if err != nil || len(errs) != 0 {
		t.Errorf("got %v, %d tries left", err, len(errs))
	}
	if got, want := m.console.String(), "keelson: node: waiting: it: not ready\nkeelson: node: waiting: it: odd: 127.0.0.1:5->h\n"; got != want {
		t.Errorf("got\n%s\nwant each reason once:\n%s", got, want)
	}
	for _, final := range []error{&trust.Error{Kind: trust.ErrAddress}, &trust.Error{Kind: trust.ErrToken}, marked{errors.New("x"), errSettings}} {
		if err := a.persist(within(t), "it", func(context.Context) error { return final }); !errors.Is(err, final) {
			t.Errorf("%v: got %v, want it at once", final, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	a.pauses = pauses{time.Hour, time.Hour, time.Hour}
	err = a.persist(ctx, "it", func(context.Context) error { cancel(stop); return errors.New("odd") })
	if !errors.Is(err, stop) {
		t.Errorf("got %v, want the cause of the end", err)
	}
}

// The whole list, with stand-ins for what needs a machine: the address, and the two programs.
func TestWholeStart(t *testing.T) {
	c, m := newCluster(t, 3), newMachine(t)
	a, _ := m.start(t, c, func(s *config.Config) { s.NodeLabels = []string{"disk=fast", "node-role.kubernetes.io/x=y"} })
	list := a.steps()
	for i, s := range list {
		switch s.Name {
		case "settings", "containerd":
			list[i].Run = func(context.Context) error { return nil }
		case "kubelet":
			list[i].Run = func(context.Context) error {
				a.kubelet = &worker.Kubelet{Others: map[string]string{"node-role.kubernetes.io/x": "y"}}
				return nil
			}
		}
	}
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	if err := a.run(ctx, list, func() {
		await(t, ctx, "the last server alone, as the API says", func() bool {
			servers := a.apiServers.Servers()
			return slices.ContainsFunc(servers, func(s loadbalancer.Server) bool { return s.Address == "127.0.0.3:"+c.apiPort }) &&
				!slices.ContainsFunc(servers, func(s loadbalancer.Server) bool { return s.Address == "127.0.0.2:"+c.apiPort })
		})
		await(t, ctx, "its tunnel", func() bool { return c.tunnels.Has("w-1") })
		cancel()
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"node Ready (", "a node may not give itself node-role.kubernetes.io/x; an administrator may: kubectl label node w-1"} {
		if !strings.Contains(m.console.String(), want) {
			t.Errorf("the console lacks %q:\n%s", want, m.console)
		}
	}
	for _, want := range []string{`"disk":"fast"`, `"rke2.io/hostname":"w-1"`, `"rke2.io/internal-ip":"10.0.2.15"`} {
		if !bytes.Contains(c.patch, []byte(want)) {
			t.Errorf("the Node's patch lacks %s: %s", want, c.patch)
		}
	}
	if bytes.Contains(c.patch, []byte("node-role")) || c.patcher != "system:node:w-1" {
		t.Errorf("%s patches %s", c.patcher, c.patch)
	}
	if !exists(a.agent("pod-manifests", "kube-proxy.yaml")) {
		t.Error("kube-proxy has no pod")
	}
}

func TestPartsFailureEndsTheAgent(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, _ := m.start(t, c, nil)
	broken := errors.New("broken")
	err := a.run(t.Context(), []sequence.Step{
		{Name: "one", Run: func(context.Context) error {
			a.background("part", func(context.Context) error { return broken })
			return nil
		}},
		{Name: "waits", Run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
	}, nil)
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "part: ") {
		t.Errorf("got %v, want the failure with the part's name", err)
	}
}
