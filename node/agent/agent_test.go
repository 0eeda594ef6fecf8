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
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/cert"

	"keelson/node/config"
	"keelson/node/sequence"
	"keelson/node/supervisorclient"
	"keelson/node/trust"
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
		{"kube-proxy", "node address", "it ends itself when its Node's address changes, and flannel too"},
		{"disk space", "settings", "it tells of the Node by its name"},
		{"node events", "kubeconfigs", "it writes with the kubelet's rights"},
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
	if len(a.firstUsed) != 64 {
		t.Errorf("the Node will not tell of it: got %q, want a hash", a.firstUsed)
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

// A machine that gets another name has a certificate of the old one, which proves nothing of the new.
func TestAnotherName(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, stop := m.start(t, c, nil)
	if err := steps(t, within(t), a, joining()...); err != nil {
		t.Fatal(err)
	}
	if !a.hasCertificate() {
		t.Error("it does not show the certificate that it has")
	}
	stop()
	a, _ = m.start(t, c, func(s *config.Config) { s.NodeName = "w-2" })
	if a.hasCertificate() {
		t.Error("it shows the certificate of its old name")
	}
	if err := steps(t, within(t), a, joining()...); err != nil {
		t.Fatal(err)
	}
	certs, err := cert.CertsFromFile(a.agent("client-kubelet.crt"))
	if err != nil || certs[0].Subject.CommonName != "system:node:w-2" {
		t.Errorf("got %v, %v", certs, err)
	}
}

// The server to join by is down, another of the settings is there: on the first start, when nothing is remembered.
func TestAlternativeServer(t *testing.T) {
	c, m := newCluster(t, 2), newMachine(t)
	c.servers[0].kill()
	a, stop := m.start(t, c, func(s *config.Config) { s.ServerAlternatives = []string{"https://127.0.0.9:1", c.url(1)} })
	if err := steps(t, within(t), a, append(joining(), "versions")...); err != nil {
		t.Fatalf("%v\n%s", err, m.console)
	}
	var at []string
	for _, s := range a.apiServers.Servers() {
		at = append(at, s.Address)
	}
	slices.Sort(at)
	if want := []string{"127.0.0.1:" + c.apiPort, "127.0.0.2:" + c.apiPort, "127.0.0.9:" + c.apiPort}; !slices.Equal(at, want) {
		t.Errorf("kube-apiservers are looked for at %v, want %v", at, want)
	}
	stop()
	// Without any of them, what is wrong is told in the name of the one to join by.
	c.servers[1].kill()
	other := newMachine(t)
	a, _ = other.start(t, c, func(s *config.Config) { s.ServerAlternatives = []string{c.url(1)} })
	if err := steps(t, within(t), a, "folders", "system images", "node password", "load balancers"); err != nil {
		t.Fatal(err)
	}
	if err := a.trustServer(within(t)); !errors.Is(err, trust.ErrUnreachable) || !strings.Contains(err.Error(), c.url(0)) {
		t.Errorf("got %v", err)
	}
}
