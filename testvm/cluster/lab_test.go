package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"keelson/testvm/cidata"
	"keelson/testvm/console"
	"keelson/testvm/kube"
	"keelson/testvm/machine"
	"keelson/testvm/netns"
	"keelson/testvm/registry"
)

var (
	flagNetns = flag.Bool("netns", false, "run the scenarios; they start machines in namespaces, and need root")
	flagIf    = flag.Bool("if-possible", false, "with -netns: where the host forbids machines, say so and run none")
	flagRoot  = flag.String("root", "../../build/amd64/root.erofs", "the image's root")
	flagKeep  = flag.Bool("keep-disks", false, "keep the disks of machines that failed")
	flagScale = flag.Float64("patience", 1, "multiplies every deadline")
)

// lab is what the scenarios of one run share.
type lab struct {
	dir      string // build/netns
	init     string // PID 1
	root     *netns.Root
	registry *registry.Registry
}

// the is set by TestMain and stays nil without -netns.
var the *lab

// Deadlines, for a host with two cores.
const (
	readyLimit  = 4 * time.Minute // from power to the cluster's being whole
	changeLimit = 3 * time.Minute // for anything that an API call sets off
	stopLimit   = time.Minute
)

// workloadImage is on a host that no mirror of ours is named after.
const (
	workloadRepository = "keelson/workload"
	workloadImage      = "docker.io/" + workloadRepository + ":1"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if !*flagNetns {
		os.Exit(m.Run())
	}
	l, err := newLab(context.Background())
	if errors.Is(err, errForbidden) && *flagIf {
		fmt.Println("cluster: SKIPPED:", err)
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
	the = l
	code := m.Run()
	if err := l.close(); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		code = 1
	}
	os.Exit(code)
}

// errForbidden is a host that lets no machines run.
var errForbidden = errors.New("no clusters of several machines here")

func newLab(ctx context.Context) (*lab, error) {
	if err := netns.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", errForbidden, err)
	}
	dir, err := filepath.Abs("../../build/netns")
	if err != nil {
		return nil, err
	}
	l := &lab{dir: dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if l.init, err = netns.Build(ctx, dir); err != nil {
		return nil, err
	}
	if _, err := os.Stat(*flagRoot); err != nil {
		return nil, fmt.Errorf("find the image's root: %w: build the image first (make image)", err)
	}
	if l.root, err = netns.OpenRoot(*flagRoot); err != nil {
		return nil, fmt.Errorf("%w: %w", errForbidden, err) // of loop devices, mostly
	}
	if err := errors.Join(netns.Sweep(), netns.Try(filepath.Join(dir, "try"), l.init, l.root)); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", errForbidden, err), l.root.Close())
	}
	if l.registry, err = registry.Start(); err != nil {
		return nil, err
	}
	workload, err := registry.Workload(ctx, runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	return l, l.registry.Push(ctx, workload, workloadRepository+":1")
}

func (l *lab) close() error { return errors.Join(l.registry.Close(), l.root.Close()) }

// within bounds a wait.
func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(float64(limit)**flagScale))
	t.Cleanup(cancel)
	return ctx
}

func slug(t *testing.T) string { return strings.NewReplacer("/", "-", "'", "").Replace(t.Name()) }

// clusterToken is that of every cluster here.
const clusterToken = "8f4c0f3e1d2b4a59b7c6d5e4f3a2b1c0"

// cluster is a LAN with machines.
type cluster struct {
	t   *testing.T
	lan *netns.LAN
	all map[string]*member

	families netns.Families // of the machines that are added
}

// member is one of its machines.
type member struct {
	machine.Computer
	name string
	n    int
	role string
	seed cidata.CloudConfig
}

// newCluster makes a LAN that goes with the test.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	if the == nil {
		t.Skip("SKIPPED: starts machines in namespaces; ask for it with -netns, as root (make cluster-test)")
	}
	lan, err := netns.NewLAN()
	if err != nil {
		t.Fatal(err)
	}
	stop, err := lan.Share(the.registry.Port())
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, lan: lan, all: map[string]*member{}}
	t.Cleanup(func() {
		for _, m := range c.all {
			c.report(m)
		}
		for _, m := range c.all {
			if err := m.Remove(); err != nil {
				t.Error(err)
			}
		}
		if err := errors.Join(stop(), lan.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// report keeps what is known of a machine whose test has failed.
func (c *cluster) report(m *member) {
	if !c.t.Failed() {
		return
	}
	dir := filepath.Join(the.dir, "reports", slug(c.t), m.name)
	if err := os.RemoveAll(dir); err != nil {
		c.t.Log(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.Report(ctx, dir, c.t.Name()+" failed", *flagKeep); err != nil {
		c.t.Log(err)
	}
	c.t.Logf("report: %s", dir)
}

// address is the one that the n-th machine is known by first, with a port.
func (c *cluster) address(n, port int) string {
	if c.families == netns.IPv6 {
		return netip.AddrPortFrom(netns.Address6(n), uint16(port)).String()
	}
	return netip.AddrPortFrom(netns.Address(n), uint16(port)).String()
}

// gateway is the test's own address for the machines, with a port.
func (c *cluster) gateway(port int) string {
	if c.families == netns.IPv6 {
		return netip.AddrPortFrom(netns.Gateway6(), uint16(port)).String()
	}
	return netip.AddrPortFrom(netns.Gateway(), uint16(port)).String()
}

// add makes a machine that is off. Its settings are the cluster's, and those that change makes.
func (c *cluster) add(name, role string, n int, change func(*cidata.CloudConfig)) *member {
	c.t.Helper()
	m := &member{name: name, n: n, role: role, seed: cidata.CloudConfig{
		Hostname: name,
		RKE2:     map[string]any{"role": role, "token": clusterToken},
		WriteFiles: []cidata.File{{
			Path: "/etc/rancher/rke2/registries.yaml", Permissions: "0600",
			Content: fmt.Sprintf("mirrors:\n  docker.io:\n    endpoint: [\"http://%s\"]\n", c.gateway(the.registry.Port())),
		}},
	}}
	if change != nil {
		change(&m.seed)
	}
	doc, err := m.seed.Render()
	if err != nil {
		c.t.Fatal(err)
	}
	began := time.Now()
	m.Computer, err = netns.New(netns.Config{
		Name: name, N: n, Dir: filepath.Join(the.dir, slug(c.t), name), Init: the.init, Root: the.root, LAN: c.lan, Families: c.families,
		Seed: cidata.Volume{UserData: doc},
		Follow: func(l console.Line) {
			fmt.Printf("    [%6.1f s] %s: %s\n", l.At.Sub(began).Seconds(), name, l.Text)
		},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.all[name] = m
	return m
}

// start switches machines on.
func (c *cluster) start(all ...*member) {
	c.t.Helper()
	for _, m := range all {
		if err := m.Start(within(c.t, stopLimit)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// client asks the apiserver of one machine.
func (c *cluster) client(m *member) *kube.Client {
	c.t.Helper()
	client, err := m.Client(within(c.t, readyLimit))
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}
