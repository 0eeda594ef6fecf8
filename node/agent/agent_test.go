package agent

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/cert"

	"keelson/node/config"
	"keelson/node/loadbalancer"
	"keelson/node/pki"
	"keelson/node/sequence"
	"keelson/node/supervisorclient"
	"keelson/node/trust"
	"keelson/node/worker"
)

func TestStepsCanRun(t *testing.T) {
	if err := sequence.Check(new(Agent).steps()); err != nil {
		t.Error(err)
	}
}

// What a step reads, a step that it is listed after must have written: the fields of Agent are ordered by nothing else.
func TestStepsFollowWhatTheyRead(t *testing.T) {
	after := map[string][]string{}
	var reach func(name string) []string
	reach = func(name string) []string {
		all := slices.Clone(after[name])
		for _, n := range after[name] {
			all = append(all, reach(n)...)
		}
		return all
	}
	for _, s := range new(Agent).steps() {
		after[s.Name] = s.After
	}
	for _, c := range []struct{ step, needs, because string }{
		{"containerd", "system images", "its configuration names the pause image"},
		{"node password", "folders", "sweeping its folder would take away what it is writing"},
		{"kubeconfigs", "folders", "sweeping their folder would take away what it is writing"},
		{"trust", "settings", "the machine has an address then"},
		{"trust", "load balancers", "what is asked later goes through them"},
		{"cluster", "trust", "the client is made there"},
		{"certificates", "cluster", "the addresses in them are resolved with the cluster's networks"},
		{"certificates", "node password", "it is shown"},
		{"kubelet", "certificates", "it exits without them"},
		{"kubelet", "kubeconfigs", "it exits without its own"},
		{"kubelet", "containerd", "it exits without the runtime's socket"},
		{"kubelet", "versions", "one that is too new must not register"},
		{"kube-proxy", "gate", "the cluster must serve"},
		{"kube-proxy", "kubeconfigs", "its pod's hash covers its own"},
		{"node object", "kubelet", "labels that the kubelet may not set are left by it"},
		{"renewal", "kube-proxy", "a pod must not be made before the gate is open"},
	} {
		if !slices.Contains(reach(c.step), c.needs) {
			t.Errorf("%q does not run after %q, but must: %s", c.step, c.needs, c.because)
		}
	}
	// Nothing of the machine's own waits for the cluster.
	if slices.Contains(reach("containerd"), "trust") {
		t.Error("containerd waits for the cluster")
	}
}

func TestNewRefuses(t *testing.T) {
	good := config.Default()
	good.Server, good.Token = "https://10.0.0.1:9345", "x"
	if _, err := New(Config{Settings: good}); err == nil {
		t.Error("taken without log and console")
	}
	for server, want := range map[string]string{"": "server: is not set", "10.0.0.1": "https://host:9345", "http://h:9345": "https://host:9345", "https://": "https://host:9345"} {
		bad := good
		bad.Server = server
		_, err := New(Config{Settings: bad, Log: newLog(), Console: new(bytes.Buffer)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("server %q: got %v, want %q in it", server, err, want)
		}
	}
}

func TestJoin(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, _ := m.start(t, c, nil)
	if err := steps(t, within(t), a, joining()...); err != nil {
		t.Fatal(err)
	}
	for name, cn := range map[string]string{
		"serving-kubelet": "w-1", "client-kubelet": "system:node:w-1", "client-kube-proxy": "system:kube-proxy", "client-rke2-controller": "system:rke2-controller",
	} {
		certs, err := cert.CertsFromFile(a.agent(name + ".crt"))
		if err != nil || certs[0].Subject.CommonName != cn {
			t.Errorf("%s: got %v, %v, want the name %s", name, certs, err, cn)
		}
		for _, end := range []string{".crt", ".key"} {
			if info, err := os.Stat(a.agent(name + end)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", name+end, info, err)
			}
		}
	}
	if got, want := a.settings.ClusterDNS[0].String(), "10.43.0.10"; got != want {
		t.Errorf("DNS: got %s, want %s", got, want)
	}
	for _, name := range []string{kubeletConfig, proxyConfig, controllerConfig} {
		loaded, err := clientcmd.BuildConfigFromFlags("", a.agent(name))
		if err != nil || loaded.Host != "https://"+a.apiServers.Address() {
			t.Errorf("%s: got %v, %v, want it to lead to the load balancer", name, loaded, err)
		}
	}
	for _, line := range []string{"cluster found", "cluster joined"} {
		if !regexp.MustCompile(`(?m)^keelson: node: ` + line + ` \(\d+\.\d{3} s\)$`).MatchString(m.console.String()) {
			t.Errorf("the console lacks %q:\n%s", line, m.console)
		}
	}
	if strings.Contains(m.console.String(), "first one seen") {
		t.Error("a token with a hash leaves nothing to first use")
	}
}

// A node that starts again keeps its keys, needs no token that still holds, and has its password checked anew.
func TestSecondStart(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, stop := m.start(t, c, nil)
	if err := steps(t, within(t), a, joining()...); err != nil {
		t.Fatal(err)
	}
	keys := map[string][]byte{}
	for _, kind := range supervisorclient.Kinds() {
		keys[string(kind)] = read(t, a.agent(string(kind)+".key"))
	}
	proxy := read(t, a.agent("client-kube-proxy.crt"))
	stop()
	c.set(func() { c.password = "rotated since" })
	a, _ = m.start(t, c, nil)
	if err := steps(t, within(t), a, joining()...); err != nil {
		t.Fatal(err)
	}
	for kind, before := range keys {
		if !bytes.Equal(before, read(t, a.agent(kind+".key"))) {
			t.Errorf("the key of %s changed", kind)
		}
	}
	if !bytes.Equal(proxy, read(t, a.agent("client-kube-proxy.crt"))) {
		t.Error("a certificate that is good was replaced, which makes kube-proxy's pod anew")
	}
	if got := c.count("client-kubelet"); got != 2 {
		t.Errorf("the kubelet's certificate was asked for %d times, want 2", got)
	}
}

// The Node was deleted: its certificate is not taken, and the token is.
func TestCertificateThatIsNoLongerTaken(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, stop := m.start(t, c, nil)
	if err := steps(t, within(t), a, joining()...); err != nil {
		t.Fatal(err)
	}
	stop()
	c.set(func() { c.unknown["w-1"] = true })
	a, _ = m.start(t, c, nil)
	if err := steps(t, within(t), a, joining()...); err != nil {
		t.Fatal(err)
	}
}

func TestJoinServerIsGone(t *testing.T) {
	c, m := newCluster(t, 3), newMachine(t)
	a, stop := m.start(t, c, nil)
	if err := steps(t, within(t), a, append(joining(), "servers")...); err != nil {
		t.Fatal(err)
	}
	ctx := within(t)
	await(t, ctx, "a tunnel", func() bool { return c.tunnels.Has("w-1") })
	await(t, ctx, "the list to be kept", func() bool {
		content, _ := os.ReadFile(a.agent("etc", "rke2-agent-load-balancer.json"))
		return bytes.Contains(content, []byte("127.0.0.3"))
	})
	c.servers[0].kill()
	// While it runs, questions go elsewhere.
	if err := a.awaitCluster(ctx); err != nil {
		t.Errorf("after the join server's death: %v", err)
	}
	if err := steps(t, ctx, a, "versions"); err != nil {
		t.Errorf("the API after the join server's death: %v", err)
	}
	// And so they do when it starts again.
	stop()
	a, _ = m.start(t, c, nil)
	if err := steps(t, ctx, a, joining()...); err != nil {
		t.Errorf("start without the join server: %v", err)
	}
}

// await looks until it holds: what is waited for happens in programs that tell nobody.
func await(t *testing.T, ctx context.Context, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

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

func TestWhatIsWrongIsSaid(t *testing.T) {
	other := newCluster(t, 1)
	for _, tt := range []struct {
		name   string
		change func(*cluster, *config.Config)
		final  bool
		says   []string
	}{
		{"wrong token", func(c *cluster, s *config.Config) { c.password = "another" }, false, []string{"server does not take the token", "copy the token"}},
		{"token of another cluster", func(_ *cluster, s *config.Config) { s.Token = config.Secret(other.token()) }, false, []string{"not the one that the token names"}},
		{"short token, whole one wanted", func(_ *cluster, s *config.Config) { s.Token, s.RequireTokenCAHash = agentPassword, true }, true, []string{"set the whole token"}},
		{"address of kube-apiserver", func(c *cluster, s *config.Config) { s.Server = "https://127.0.0.1:" + c.apiPort }, false, []string{"no supervisor of a cluster", "9345"}},
		{"nobody there", func(c *cluster, s *config.Config) { c.servers[0].kill() }, false, []string{"nothing listens on the port"}},
		{"another machine has the name", func(c *cluster, _ *config.Config) { c.passwords["w-1"] = "theirs" }, false, []string{"node password does not match", "kubectl delete node w-1", "set another node-name"}},
		{"address of another family", func(_ *cluster, s *config.Config) { s.NodeIP = parse("fd00::1") }, true, []string{"node-ip", "cluster-cidr"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, m := newCluster(t, 1), newMachine(t)
			a, _ := m.start(t, c, func(s *config.Config) { tt.change(c, s) })
			ctx, cancel := context.WithCancel(within(t))
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- steps(t, ctx, a, joining()...) }()
			said := func(text string) bool {
				return !slices.ContainsFunc(tt.says, func(s string) bool { return !strings.Contains(text, s) })
			}
			if tt.final {
				if err := <-ended; err == nil || !said(err.Error()) {
					t.Errorf("got %v, want %q in it", err, tt.says)
				}
				return
			}
			await(t, ctx, "the console to say why; it says "+m.console.String(), func() bool { return said(m.console.String()) })
			select {
			case err := <-ended:
				t.Errorf("it gave up: %v", err)
			default:
			}
			cancel()
			<-ended
			if strings.Contains(m.console.String(), agentPassword) {
				t.Error("the console shows the token")
			}
		})
	}
}

func TestFirstUse(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, _ := m.start(t, c, func(s *config.Config) { s.Token = agentPassword })
	if err := steps(t, within(t), a, joining()...); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(m.console.String(), "the first one seen") {
		t.Errorf("the console does not tell of it:\n%s", m.console)
	}
}

func TestNodePassword(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, _ := m.start(t, c, nil)
	for range 2 {
		if err := steps(t, within(t), a, "node password"); err != nil {
			t.Fatal(err)
		}
	}
	content := read(t, a.places.password)
	if !regexp.MustCompile(`^[0-9a-f]{32}\n$`).Match(content) || a.password.Reveal() != strings.TrimSpace(string(content)) {
		t.Errorf("the file holds %d bytes, and the password is another or no hex", len(content))
	}
	if info, err := os.Stat(a.places.password); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestStaleProxyGoesOnlyAfterTheMachineStarted(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, _ := m.start(t, c, nil)
	pod := a.agent("pod-manifests", "kube-proxy.yaml")
	place := func() {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(pod), 0o700), os.WriteFile(pod, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	place()
	if err := a.makeFolders(t.Context()); err != nil || exists(pod) {
		t.Errorf("after the machine's start: %v, still there: %v", err, exists(pod))
	}
	place()
	if err := a.makeFolders(t.Context()); err != nil || !exists(pod) {
		t.Errorf("after node's restart: %v, still there: %v", err, exists(pod))
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
	errs := []error{supervisorclient.ErrNotReady, errors.New("odd"), supervisorclient.ErrNotReady, errors.New("odd"), nil}
	err := a.persist(within(t), "it", func(context.Context) error {
		err := errs[0]
		errs = errs[1:]
		return err
	})
	if err != nil || len(errs) != 0 {
		t.Errorf("got %v, %d tries left", err, len(errs))
	}
	if got, want := m.console.String(), "keelson: node: waiting: it: not ready\nkeelson: node: waiting: it: odd\n"; got != want {
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
