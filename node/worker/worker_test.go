package worker

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	corev1 "k8s.io/api/core/v1"

	"keelson/node/config"
	"keelson/node/systemimage"
	"keelson/node/systemimage/layouttest"
)

// fixture is a worker whose files and programs are the test's.
type fixture struct {
	*Worker
	dir        string
	settings   config.Config // resolved
	milestones []string
	background map[string]func(context.Context) error
}

func newFixture(t *testing.T, change func(*config.Config)) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir(), background: map[string]func(context.Context) error{}}
	loaded := config.Default()
	loaded.DataDir = filepath.Join(f.dir, "rke2")
	loaded.PrivateRegistry = filepath.Join(f.dir, "registries.yaml")
	if change != nil {
		change(&loaded)
	}
	var err error
	f.settings, err = loaded.Resolve(config.Host{Name: "w-1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.2.15")}})
	if err != nil {
		t.Fatal(err)
	}
	images := []layouttest.Image{
		{Name: "registry.example/pause:v1", Layers: []string{"one"}, Command: []string{"/pause"}},
		{Name: "registry.example/kube-proxy:v1", Layers: []string{"one"}, Command: []string{"/kube-proxy"}},
	}
	layout, err := systemimage.Load(layouttest.Write(t, f.dir, map[string]layouttest.Layer{"one": {"program": "x"}}, images...))
	if err != nil {
		t.Fatal(err)
	}
	f.Worker, err = New(Config{
		Settings: loaded, Images: layout, Log: slog.New(slog.DiscardHandler),
		Background: func(name string, run func(context.Context) error) { f.background[name] = run },
		Milestone:  func(what string) { f.milestones = append(f.milestones, what) },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.programs = programs{
		containerd: filepath.Join(f.dir, "containerd"), kubelet: filepath.Join(f.dir, "kubelet"),
		socket: filepath.Join(f.dir, "containerd.sock"), networkDir: filepath.Join(f.dir, "net.d"),
		networkFile: filepath.Join(f.dir, "net.d", "10-flannel.conflist"), resolvConf: filepath.Join(f.dir, "resolv.conf"),
	}
	for _, dir := range []string{f.agent("pod-manifests"), f.agent("etc", "containerd")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestNewWantsAll(t *testing.T) {
	whole := newFixture(t, nil).cfg
	for name, change := range map[string]func(*Config){
		"log":        func(c *Config) { c.Log = nil },
		"images":     func(c *Config) { c.Images = nil },
		"background": func(c *Config) { c.Background = nil },
		"milestone":  func(c *Config) { c.Milestone = nil },
	} {
		cfg := whole
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("without %s: no error", name)
		}
	}
}

func TestContainerdsConfiguration(t *testing.T) {
	f := newFixture(t, nil)
	if err := f.configureContainerd(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, f.agent("etc", "containerd", "config.toml")); !strings.Contains(got, "registry.example/pause:v1") {
		t.Errorf("the sandbox image is not in\n%s", got)
	}
	if got := read(t, f.programs.networkFile); !strings.Contains(got, "flannel") {
		t.Errorf("the pod network is not flannel's: %s", got)
	}
}

func TestNoNetworkOfOurs(t *testing.T) {
	f := newFixture(t, func(c *config.Config) { c.CNI = config.CNINone })
	if err := f.configureContainerd(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.programs.networkFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a network file is there: %v", err)
	}
	if info, err := os.Stat(f.programs.networkDir); err != nil || !info.IsDir() {
		t.Errorf("the folder for the user's own network is not there: %v", err)
	}
}

func TestRegistries(t *testing.T) {
	f := newFixture(t, nil)
	if err := ApplyRegistries(f.settings); err != nil {
		t.Fatalf("without a file: %v", err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(f.settings.PrivateRegistry, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("mirrors:\n  docker.io:\n    endpoint: [http://10.0.2.2:5000]\n")
	if err := ApplyRegistries(f.settings); err != nil {
		t.Fatal(err)
	}
	if got := read(t, f.agent("etc", "containerd", "certs.d", "docker.io", "hosts.toml")); !strings.Contains(got, "http://10.0.2.2:5000") {
		t.Errorf("hosts.toml: %s", got)
	}
	shared := f.settings
	shared.EmbeddedRegistry = true
	write("mirrors:\n  docker.io:\n    endpoint: [http://10.0.2.2:5000]\n")
	if err := ApplyRegistries(shared); err != nil {
		t.Fatal(err)
	}
	if got := read(t, f.agent("etc", "containerd", "certs.d", "docker.io", "hosts.toml")); !strings.Contains(got, "https://127.0.0.1:9345/v2") || !strings.Contains(got, "http://10.0.2.2:5000") {
		t.Errorf("with the embedded registry: hosts.toml: %s", got)
	}
	write("mirrors:\n  docker.io:\n    endpoints: [x]\n")
	if err := ApplyRegistries(f.settings); err == nil || !strings.Contains(err.Error(), "endpoints") {
		t.Errorf("got %v, want an error with the key", err)
	}
}

// script writes a program that tells of its start in a file and then does what body says.
func script(t *testing.T, path, body string) (started string) {
	t.Helper()
	started = path + ".started"
	text := "#!/bin/sh\nprintf '%s\\n' \"$*\" >> " + started + "\n" + body + "\n"
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return started
}

func TestContainerdStartsAndIsAwaited(t *testing.T) {
	f := newFixture(t, nil)
	script(t, f.programs.containerd, "exec sleep 60")
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	f.cfg.Background = func(name string, run func(context.Context) error) {
		f.background[name] = run
		cancel(enough) // nothing will ever answer on the socket
	}
	if err := f.StartContainerd(ctx); err == nil {
		t.Error("containerd is ready without a socket")
	}
	if f.background["containerd"] == nil || len(f.milestones) > 0 {
		t.Errorf("background %v, milestones %v", f.background, f.milestones)
	}
}

func TestKubeletStartsAndRestarts(t *testing.T) {
	f := newFixture(t, func(c *config.Config) {
		c.NodeLabels = []string{"disk=fast", "node-role.kubernetes.io/worker=true"}
	})
	// Each start of the program is an event: it writes a line into a pipe.
	fifo := filepath.Join(f.dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	script(t, f.programs.kubelet, "echo up > "+fifo+"\nexec sleep 60")
	k, err := f.StartKubelet(t.Context(), f.settings)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := k.Others["node-role.kubernetes.io/worker"], "true"; got != want || len(k.Others) != 1 {
		t.Errorf("labels for the supervisor: got %v", k.Others)
	}
	if !slices.Equal(f.milestones, []string{"kubelet started"}) {
		t.Errorf("milestones: %v", f.milestones)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.background["kubelet"](ctx) }()
	awaitLine(t, fifo)
	if err := k.Restart(); err != nil {
		t.Fatal(err)
	}
	awaitLine(t, fifo)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("at the end: %v", err)
	}
	args := read(t, f.programs.kubelet+".started")
	for _, want := range []string{"--hostname-override=w-1", "--node-ip=10.0.2.15", "--node-labels=disk=fast", "--kubeconfig=" + f.agent("kubelet.kubeconfig")} {
		if !strings.Contains(args, want) {
			t.Errorf("arguments lack %s: %s", want, args)
		}
	}
}

func awaitLine(t *testing.T, fifo string) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(fifo) // until the writer closes it
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the program was not started")
	}
}

func TestKubeletsFolderHoldsWhatWasRendered(t *testing.T) {
	f := newFixture(t, nil)
	old := f.agent("etc", "kubelet.conf.d", "10-cli-config.conf")
	if err := os.MkdirAll(filepath.Dir(old), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(old, []byte("maxPods: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, _, err := f.renderKubelet(f.settings)
	if err != nil {
		t.Fatal(err)
	}
	if err := applyKubelet(r); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an old drop-in is still there: %v", err)
	}
	got := read(t, f.agent("etc", "kubelet.conf.d", "00-rke2-defaults.conf"))
	for _, want := range []string{f.agent("serving-kubelet.crt"), f.agent("client-ca.crt"), "10.43.0.10"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in\n%s", want, got)
		}
	}
}

func TestResolvConf(t *testing.T) {
	f := newFixture(t, nil)
	if got, err := f.Worker.resolvConf("/given"); err != nil || got != "/given" {
		t.Errorf("given: got %q, %v", got, err)
	}
	generated := f.agent("etc", "resolv.conf")
	if got, err := f.Worker.resolvConf(""); err != nil || got != generated {
		t.Errorf("no file of the machine: got %q, %v", got, err)
	}
	for text, want := range map[string]string{"nameserver 10.0.2.3\n": f.programs.resolvConf, "nameserver 127.0.0.53\n": generated} {
		if err := os.WriteFile(f.programs.resolvConf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Worker.resolvConf(""); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestProxyPod(t *testing.T) {
	f := newFixture(t, nil)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(f.agent(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("kubeproxy.kubeconfig", "users:\n- user: {client-certificate: "+f.agent("client-kube-proxy.crt")+"}\n")
	write("client-kube-proxy.crt", "one")
	path := f.agent("pod-manifests", "kube-proxy.yaml")
	uid := func() string {
		t.Helper()
		var pod corev1.Pod
		if err := yaml.UnmarshalStrict([]byte(read(t, path)), &pod); err != nil {
			t.Fatal(err)
		}
		if got, want := pod.Spec.Containers[0].Image, "registry.example/kube-proxy:v1"; got != want {
			t.Errorf("image: got %q, want %q", got, want)
		}
		if got, want := pod.Spec.Containers[0].Args, "--cluster-cidr=10.42.0.0/16"; !slices.Contains(got, want) {
			t.Errorf("arguments: got %v, want %s among them", got, want)
		}
		return string(pod.UID)
	}
	if changed, err := f.ProxyPod(f.settings); err != nil || !changed {
		t.Fatalf("first: %v, %v", changed, err)
	}
	first := uid()
	if changed, err := f.ProxyPod(f.settings); err != nil || changed {
		t.Errorf("again: %v, %v", changed, err)
	}
	// kube-proxy has single files mounted: it sees a renewed one only when its pod is made anew.
	write("client-kube-proxy.crt", "two")
	if changed, err := f.ProxyPod(f.settings); err != nil || !changed || uid() == first {
		t.Errorf("after a change: %v, %v, the same pod: %v", changed, err, uid() == first)
	}
	f.settings.DisableKubeProxy = true
	if changed, err := f.ProxyPod(f.settings); err != nil || !changed {
		t.Errorf("switched off: %v, %v", changed, err)
	}
	if changed, err := f.ProxyPod(f.settings); err != nil || changed {
		t.Errorf("still off: %v, %v", changed, err)
	}
}

func TestEnvironment(t *testing.T) {
	environ := []string{"HTTPS_PROXY=http://p:1", "no_proxy=10.0.0.0/8", "SECRET=x", "CONTAINERD_HTTPS_PROXY=http://c:2", "PATH=/evil"}
	if got := Environment(environ, "CONTAINERD_"); !slices.Contains(got, "HTTPS_PROXY=http://c:2") || slices.Contains(got, "SECRET=x") || slices.Contains(got, "PATH=/evil") {
		t.Errorf("containerd: got %v", got)
	}
	if got, want := ProxyEnvironment(environ), []string{"HTTPS_PROXY=http://p:1", "no_proxy=10.0.0.0/8"}; !slices.Equal(got, want) {
		t.Errorf("pods: got %v, want %v", got, want)
	}
}
