// Package agent makes this machine an agent of its cluster: it comes to trust the cluster's servers, obtains
// certificates for keys that it made itself, and runs containerd, the kubelet and kube-proxy, which reach the cluster
// through load balancers on this machine.
//
// start.go is the whole start-up as one list; the order is RKE2's (k3s pkg/agent). Whatever has to be waited for is told
// on the machine's console, each reason once: nothing loops in silence. An agent holds no authority, no etcd and no
// token of others; what the cluster decides (networks, DNS, whether there is a kube-proxy) it takes from a server.
// `node agent` is its only user.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"keelson/node/config"
	"keelson/node/loadbalancer"
	"keelson/node/nodeevent"
	"keelson/node/sequence"
	"keelson/node/status"
	"keelson/node/supervisorapi"
	"keelson/node/supervisorclient"
	"keelson/node/systemimage"
	"keelson/node/token"
	"keelson/node/trust"
	"keelson/node/tunnel"
	"keelson/node/worker"
)

// Ports of servers (k3s pkg/cli/cmds: the supervisor's and kube-apiserver's).
const (
	supervisorPort = "9345"
	apiPort        = "6443"
)

// places are files, folders and addresses that are not settings. Only tests have others than these.
type places struct {
	images     string // the system images' layout
	started    string // on a file system in memory: there if and only if node has run since the machine started
	password   string // this machine's own, which binds its name to it
	supervisor string // where the load balancers listen
	apiServer  string
	apiPort    string // of servers
	status     string // the socket of `node status`; empty: none
	listen     string // the embedded registry
}

func defaultPlaces() places {
	return places{
		images:     systemimage.DefaultDir,
		started:    "/run/keelson/node-started",
		password:   "/etc/rancher/node/password",
		supervisor: "127.0.0.1:6444",
		apiServer:  "127.0.0.1:6443",
		apiPort:    apiPort,
		status:     status.DefaultSocket,
		listen:     supervisorapi.DefaultAddress,
	}
}

// Config is what Run needs from outside.
type Config struct {
	Settings config.Config // as loaded; what machine and cluster decide is resolved at start
	Version  string        // of this program
	Environ  []string      // the process's environment, for what children inherit
	Log      *slog.Logger
	Console  io.Writer // takes one line a milestone, for the machine's console
}

// Agent is an agent of a cluster.
type Agent struct {
	cfg    Config
	places places
	log    *slog.Logger
	now    func() time.Time
	pauses pauses
	join   string // host:port of the server of the settings
	// background keeps something running for as long as the agent does; its failure ends the agent. Run sets it.
	background func(name string, run func(context.Context) error)

	// What earlier steps of the list leave for later ones. A step only reads what a step that it is listed after has
	// written, which is what orders the accesses.
	host        config.Host
	settings    config.Config // resolved, with what the cluster has decided
	port        string        // of the cluster's supervisors
	images      *systemimage.Layout
	worker      *worker.Worker
	password    token.Secret
	supervisors *loadbalancer.Balancer
	apiServers  *loadbalancer.Balancer
	access      trust.Access             // to the supervisors' load balancer
	client      *supervisorclient.Client // shows this node's certificate, once there is one, beside the token
	bare        *supervisorclient.Client // shows the token alone
	firstUsed   string                   // hash of an authority that was trusted because it was the first one seen
	tunnels     *tunnel.Set
	kubelet     *worker.Kubelet
	registry    *registry // nil where the cluster has none

	live   status.Live        // what `node status` tells
	events nodeevent.Recorder // on this machine's Node

	mu sync.Mutex // one line on the console at a time
}

// New checks the configuration; nothing is started.
func New(cfg Config) (*Agent, error) {
	if cfg.Console == nil || cfg.Log == nil {
		return nil, errors.New("agent: a log and a console are needed")
	}
	if err := cfg.Settings.CheckAgent(); err != nil {
		return nil, err
	}
	if err := sequence.Check(new(Agent).steps()); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	join, err := joinAddress(cfg.Settings.Server)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return &Agent{cfg: cfg, places: defaultPlaces(), log: cfg.Log, now: time.Now, pauses: defaultPauses(), join: join}, nil
}

// joinAddress takes host and port out of the server's URL.
func joinAddress(server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return "", errors.New("server: write it as https://host:9345") // the parser's error quotes it
	}
	port := u.Port()
	if port == "" {
		port = "443" // of the scheme, as trust takes it
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

// Run starts the agent and keeps it running until ctx is done or a part that cannot be restarted fails.
func (a *Agent) Run(ctx context.Context) error {
	a.milestone("agent started")
	return a.run(ctx, a.steps(), func() { a.log.Info("started") })
}

// run goes through the steps, calls started (which may be nil) after the last, and stays until all that they have
// begun has ended.
func (a *Agent) run(ctx context.Context, steps []sequence.Step, started func()) error {
	group, ctx := errgroup.WithContext(ctx)
	a.background = func(name string, run func(context.Context) error) {
		group.Go(func() error {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	a.startStatus(steps)
	group.Go(func() error {
		err := sequence.Run(ctx, steps, func(name string, took time.Duration, err error) {
			a.log.Info("step", "step", name, "dur", took.Round(time.Millisecond), "error", err)
		})
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("start: %w", err)
		}
		if err == nil {
			a.live.Done()
			if started != nil {
				started()
			}
		}
		return nil
	})
	return group.Wait()
}

// milestone tells the console how far the start has come.
func (a *Agent) milestone(what string) {
	var up unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) // cannot fail for this clock
	a.console(fmt.Sprintf("%s (%.3f s)", what, float64(up.Nano())/1e9))
}

// console puts a line on the machine's console.
func (a *Agent) console(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fmt.Fprintf(a.cfg.Console, "keelson: node: %s\n", text)
}

// agent names paths below <data-dir>/agent.
func (a *Agent) agent(parts ...string) string {
	return filepath.Join(append([]string{a.cfg.Settings.DataDir, "agent"}, parts...)...)
}
