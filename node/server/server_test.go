package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	corev1 "k8s.io/api/core/v1"

	"keelson/node/config"
	"keelson/node/sequence"
	"keelson/node/staticpod"
	"keelson/node/systemimage/layouttest"
	"keelson/node/token"
)

// newServer is a server whose folders and images are the test's, with the steps up to the control plane's files done.
func newServer(t *testing.T, change func(*config.Config)) *Server {
	t.Helper()
	dir := t.TempDir()
	settings := config.Default()
	settings.DataDir = filepath.Join(dir, "rke2")
	settings.WriteKubeconfig = filepath.Join(dir, "etc", "rke2.yaml")
	settings.PrivateRegistry = filepath.Join(dir, "etc", "registries.yaml")
	if change != nil {
		change(&settings)
	}
	s, err := New(Config{Settings: settings, Version: "test", Log: slog.New(slog.DiscardHandler), Console: new(bytes.Buffer)})
	if err != nil {
		t.Fatal(err)
	}
	var images []layouttest.Image
	for _, name := range []string{"pause", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "cloud-controller-manager", "kube-proxy", "flannel", "coredns", "network-policy", "metrics-server", "local-path"} {
		images = append(images, layouttest.Image{Name: "registry.example/" + name + ":v1.37.2", Layers: []string{"one"}, Command: []string{"/" + name}})
	}
	s.places = places{
		images:    layouttest.Write(t, dir, map[string]layouttest.Layer{"one": {"program": "x"}}, images...),
		templates: "../../configs/manifests",
		charts:    filepath.Join(dir, "charts"),
		served:    filepath.Join(dir, "run", "etcd-served"),
		started:   filepath.Join(dir, "run", "node-started"),
		password:  filepath.Join(dir, "etc", "node", "password"),
		admission: filepath.Join(dir, "etc", "rke2-pss.yaml"),
		kubelet:   filepath.Join(dir, "kubelet"),
	}
	s.settings, err = settings.Resolve(config.Host{Name: "cp-1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.2.15")}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// prepare runs the steps that make files, in the order of the list.
func prepare(t *testing.T, s *Server) {
	t.Helper()
	wanted := []string{"folders", "system images", "secrets", "certificates", "token files", "stale pods", "etcd member", "etcd pod", "apiserver pod", "manifests"}
	for _, step := range s.steps() {
		if !slices.Contains(wanted, step.Name) {
			continue
		}
		if err := step.Run(context.Background()); err != nil {
			t.Fatalf("%s: %v", step.Name, err)
		}
		wanted = slices.DeleteFunc(wanted, func(name string) bool { return name == step.Name })
	}
	if len(wanted) > 0 {
		t.Fatalf("not in the list: %v", wanted)
	}
}

func manifest(t *testing.T, s *Server, component string) corev1.Pod {
	t.Helper()
	content, err := os.ReadFile(s.agent("pod-manifests", component+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(content, &pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

func TestStepsCanRun(t *testing.T) {
	if err := sequence.Check(new(Server).steps()); err != nil {
		t.Error(err)
	}
}

// What a step reads, a step that it is listed after must have written: the fields of Server are ordered by nothing else.
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
	for _, s := range new(Server).steps() {
		after[s.Name] = s.After
	}
	for _, c := range []struct{ step, needs, because string }{
		{"cluster", "system images", "their version is held against the cluster's"},
		{"containerd", "system images", "its configuration names the pause image"},
		{"certificates", "settings", "their names are settings"},
		{"token files", "certificates", "they hold the CA's hash"},
		{"etcd pod", "stale pods", "a stale one must not be removed after it was written"},
		{"apiserver pod", "etcd member", "all pods are rendered from one set of parameters"},
		{"kubelet", "gate", "its kubeconfig leads there"},
		{"kubelet", "containerd", "it exits without the runtime's socket"},
		{"joining", "bootstrap record", "that is what joining servers obtain"},
		{"joining", "listener", "it installs the listener's answers"},
		{"node object", "kubelet", "labels that the kubelet may not set are left by it"},
		{"cloud controller", "add-ons", "its rights are among them"},
		{"charts", "etcd", "the turn for them is there"},
		{"node object", "apiserver", "the client is made there"},
		{"node events", "apiserver", "the client is made there"},
		{"controllers", "node address", "kube-proxy is among them, and ends itself when its Node's address changes"},
		{"disk space", "folders", "it looks at the data folder"},
		{"node events", "certificates", "it looks at them at once"},
	} {
		if !slices.Contains(reach(c.step), c.needs) {
			t.Errorf("%q does not run after %q, but must: %s", c.step, c.needs, c.because)
		}
	}
}

func TestFirstStartMakesTheServersFiles(t *testing.T) {
	s := newServer(t, nil)
	prepare(t, s)
	for _, path := range []string{
		s.server("token"), s.server("node-token"), s.server("cred", "passwd"), s.server("cred", "encryption-config.json"),
		s.server("cred", "ipsec.psk"), s.server("tls", "service.key"), s.server("db", "etcd", "config"),
		s.server("manifests", "rke2-flannel.yaml"), s.server("manifests", "rke2-coredns.yaml"), s.server("manifests", "rke2-roles.yaml"),
		s.server("etc", "authentication-config.yaml"), s.places.admission, s.cfg.Settings.WriteKubeconfig,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Errorf("%v", err)
		} else if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v is open to others", path, info.Mode())
		}
	}
	etcd, api := manifest(t, s, "etcd"), manifest(t, s, "kube-apiserver")
	if got := etcd.Spec.Containers[0].Image; got != "registry.example/etcd:v1.37.2" {
		t.Errorf("etcd's image: got %q", got)
	}
	if !slices.Contains(api.Spec.Containers[0].Args, "--advertise-address=10.0.2.15") {
		t.Errorf("kube-apiserver's arguments: got %v, want the node's address among them", api.Spec.Containers[0].Args)
	}
	local, err := os.ReadFile(s.agent("kubelet.kubeconfig"))
	if err != nil || !bytes.Contains(local, []byte("https://"+gateAddress)) {
		t.Errorf("the kubelet's kubeconfig does not lead to the gate: %v\n%s", err, local)
	}
}

// A supervisor that starts again under running pods must not change a byte of what they run from.
func TestSecondStartChangesNothing(t *testing.T) {
	s := newServer(t, nil)
	prepare(t, s)
	before := contents(t, s.cfg.Settings.DataDir)
	first := s.passwords
	s.passwords = token.Passwords{}
	prepare(t, s)
	after := contents(t, s.cfg.Settings.DataDir)
	if !maps.Equal(before, after) {
		for path, text := range after {
			if before[path] != text {
				t.Errorf("%s changed", path)
			}
		}
	}
	if s.passwords.Server.Reveal() != first.Server.Reveal() {
		t.Error("the second start has another token")
	}
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		all[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestStalePodsGoOnlyAfterTheMachineStarted(t *testing.T) {
	s := newServer(t, nil)
	prepare(t, s)
	if err := s.writeControllers(context.Background()); err != nil {
		t.Fatal(err)
	}
	running := s.agent("pod-manifests", staticpod.Scheduler+".yaml")
	if err := s.removeStalePods(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(running); err != nil {
		t.Errorf("a restart of the supervisor took the scheduler's manifest away: %v", err)
	}
	if err := os.Remove(s.places.started); err != nil { // as a reboot does
		t.Fatal(err)
	}
	if err := s.removeStalePods(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(running); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the scheduler's manifest is there after a reboot: %v", err)
	}
	if _, err := os.Stat(s.agent("pod-manifests", staticpod.Etcd+".yaml")); err != nil {
		t.Errorf("etcd's manifest must stay: %v", err)
	}
}

func TestDisabledComponentsHaveNoPod(t *testing.T) {
	s := newServer(t, func(c *config.Config) {
		c.DisableScheduler, c.DisableKubeProxy, c.DisableCloudController = true, true, true
	})
	prepare(t, s)
	if err := errors.Join(s.writeControllers(context.Background()), s.writeCloudController(context.Background())); err != nil {
		t.Fatal(err)
	}
	got, err := filepath.Glob(s.agent("pod-manifests", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i] = filepath.Base(got[i])
	}
	if want := []string{"etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLostEncryptionKeyOfACluster(t *testing.T) {
	s := newServer(t, nil)
	prepare(t, s)
	if err := os.MkdirAll(s.server("db", "etcd", "member", "wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.server("cred", "encryption-config.json")); err != nil {
		t.Fatal(err)
	}
	if err := s.ensureSecrets(context.Background()); err == nil || !strings.Contains(err.Error(), "restore the file") {
		t.Errorf("got %v, want an error that says to restore the file", err)
	}
}

func TestRegistries(t *testing.T) {
	s := newServer(t, nil)
	prepare(t, s)
	if err := s.applyRegistries(); err != nil {
		t.Fatalf("without a file: %v", err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(s.cfg.Settings.PrivateRegistry, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("mirrors:\n  docker.io:\n    endpoint: [http://10.0.2.2:5000]\n")
	if err := s.applyRegistries(); err != nil {
		t.Fatal(err)
	}
	hosts, err := os.ReadFile(s.agent("etc", "containerd", "certs.d", "docker.io", "hosts.toml"))
	if err != nil || !bytes.Contains(hosts, []byte("http://10.0.2.2:5000")) {
		t.Errorf("hosts.toml: %v\n%s", err, hosts)
	}
	write("mirrors:\n  docker.io:\n    endpoints: [x]\n")
	if err := s.applyRegistries(); err == nil || !strings.Contains(err.Error(), "3") || !strings.Contains(err.Error(), "endpoints") {
		t.Errorf("got %v, want an error with line and key", err)
	}
}

func TestEnvironment(t *testing.T) {
	s := newServer(t, nil)
	s.cfg.Environ = []string{"HTTPS_PROXY=http://p:1", "no_proxy=10.0.0.0/8", "SECRET=x", "CONTAINERD_HTTPS_PROXY=http://c:2", "PATH=/evil"}
	if got := s.environment("CONTAINERD_"); !slices.Contains(got, "HTTPS_PROXY=http://c:2") || slices.Contains(got, "SECRET=x") || slices.Contains(got, "PATH=/evil") {
		t.Errorf("containerd: got %v", got)
	}
	if got, want := s.proxyEnvironment(), []string{"HTTPS_PROXY=http://p:1", "no_proxy=10.0.0.0/8"}; !slices.Equal(got, want) {
		t.Errorf("pods: got %v, want %v", got, want)
	}
}

func TestMilestone(t *testing.T) {
	s := newServer(t, nil)
	s.milestone("etcd ready")
	got := s.cfg.Console.(*bytes.Buffer).String()
	if !regexp.MustCompile(`^keelson: node: etcd ready \(\d+\.\d{3} s\)\n$`).MatchString(got) {
		t.Errorf("got %q", got)
	}
}

func TestAPIServersBeforeAndAfterReadiness(t *testing.T) {
	s := newServer(t, nil)
	if _, err := s.apiServers(context.Background()); err == nil {
		t.Error("got a list before kube-apiserver serves")
	}
	close(s.ready)
	got, err := s.apiServers(context.Background())
	if err != nil || !slices.Equal(got, []string{"10.0.2.15:6443"}) {
		t.Errorf("got %v, %v", got, err)
	}
}

// What a step begins must outlive the list: the end of the start is not the end of the server.
func TestBackgroundOutlivesTheStart(t *testing.T) {
	s := newServer(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- s.run(ctx, []sequence.Step{{Name: "one", Run: func(context.Context) error {
			s.background("part", func(ctx context.Context) error { <-ctx.Done(); close(ended); return nil })
			return nil
		}}}, func() {
			select {
			case <-ended:
				t.Error("the part ended with the list")
			default:
			}
			cancel()
		})
	}()
	if err := <-done; err != nil {
		t.Errorf("got %v", err)
	}
	<-ended
}

func TestAPartsFailureEndsTheServer(t *testing.T) {
	s := newServer(t, nil)
	broken := errors.New("broken")
	err := s.run(context.Background(), []sequence.Step{
		{Name: "one", Run: func(context.Context) error {
			s.background("part", func(context.Context) error { return broken })
			return nil
		}},
		{Name: "waits", Run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
	}, nil)
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "part: ") {
		t.Errorf("got %v, want the failure with the part's name", err)
	}
}
