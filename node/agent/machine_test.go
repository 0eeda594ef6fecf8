package agent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"keelson/node/config"
	"keelson/node/systemimage/layouttest"
)

// console collects the machine's console.
type console struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

// machine is where an agent lives: it outlasts the agent's restarts.
type machine struct {
	dir     string
	images  string
	console *console
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{dir: t.TempDir(), console: new(console)}
	var images []layouttest.Image
	for _, name := range []string{"pause", "kube-proxy"} {
		images = append(images, layouttest.Image{Name: "registry.example/" + name + ":v1.37.2", Layers: []string{"one"}, Command: []string{"/" + name}})
	}
	m.images = layouttest.Write(t, m.dir, map[string]layouttest.Layer{"one": {"program": "x"}}, images...)
	return m
}

// start makes an agent of the machine, as node's start does; it ends with the test or with stop.
func (m *machine) start(t *testing.T, c *cluster, change func(*config.Config)) (a *Agent, stop func()) {
	t.Helper()
	settings := config.Default()
	settings.DataDir = filepath.Join(m.dir, "rke2")
	settings.Server, settings.Token = c.url(0), config.Secret(c.token())
	settings.NodeName = "w-1"
	if change != nil {
		change(&settings)
	}
	a, err := New(Config{Settings: settings, Version: "test", Log: slog.New(slog.DiscardHandler), Console: m.console})
	if err != nil {
		t.Fatal(err)
	}
	a.places = places{
		images: m.images, started: filepath.Join(m.dir, "run", "started"), password: filepath.Join(m.dir, "etc", "node", "password"),
		supervisor: "127.0.0.1:0", apiServer: "127.0.0.1:0", apiPort: c.apiPort,
	}
	a.pauses = pauses{time.Millisecond, 10 * time.Millisecond, 10 * time.Millisecond}
	a.host = config.Host{Name: "host", Addresses: []netip.Addr{netip.MustParseAddr("10.0.2.15")}}
	a.settings = a.cfg.Settings
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	a.background = func(name string, run func(context.Context) error) {
		group.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		group.Wait()
	})
	t.Cleanup(stop)
	return a, stop
}

// joining are the steps that need no programs of the machine.
func joining() []string {
	return []string{"folders", "system images", "node password", "load balancers", "trust", "cluster", "certificates", "kubeconfigs"}
}

// steps runs steps of the list by name, in the order of the list.
func steps(t *testing.T, ctx context.Context, a *Agent, names ...string) error {
	t.Helper()
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	for _, s := range a.steps() {
		if !wanted[s.Name] {
			continue
		}
		delete(wanted, s.Name)
		if err := s.Run(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	if len(wanted) > 0 {
		t.Fatalf("not in the list: %v", wanted)
	}
	return nil
}

// within bounds what a test waits for.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
