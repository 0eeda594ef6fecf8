// Package server makes this machine a server of its cluster: it settles secrets and certificates, starts containerd
// and the kubelet, has the control plane run as static pods, applies the add-ons and answers joining machines.
//
// start.go is the whole start-up as one list. The work of each step is in the package it is about (pki, staticpod,
// kubelet, ...); here they are put in order and given their settings. Nothing of it decides what a setting means
// (node/config does) and nothing is started that Run does not end. `node server` is its only user.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/client-go/kubernetes"

	"keelson/node/bootstrapdata/etcdstore"
	"keelson/node/chartsource"
	"keelson/node/config"
	"keelson/node/etcd"
	"keelson/node/etcdsnapshot"
	"keelson/node/gate"
	"keelson/node/loadbalancer"
	"keelson/node/mirror"
	"keelson/node/nodeevent"
	"keelson/node/nodeobject"
	"keelson/node/nodepassword"
	"keelson/node/pki"
	"keelson/node/reencryption"
	"keelson/node/rotation"
	"keelson/node/sequence"
	"keelson/node/signing"
	"keelson/node/status"
	"keelson/node/supervisorapi"
	"keelson/node/systemimage"
	"keelson/node/telemetry"
	"keelson/node/token"
	"keelson/node/tunnel"
)

// places are folders and files that are not settings. Only tests have others than these.
type places struct {
	images    string // the system images' layout
	templates string // the image's add-ons
	charts    string // the image's charts
	// served is on a file system in memory: it is as old as etcd's first service since the machine started.
	served string
	// started is on a file system in memory: it is there if and only if node has run since the machine started.
	started   string
	password  string // of this machine's node
	admission string // RKE2's pod security configuration, written anew at each start
	listen    string // the supervisor's address
	kubelet   string // the kubelet's folder
	etcd      string // this server's own etcd: its member, or the load balancer before the others'
	api       string // where the load balancer before kube-apiservers listens
	status    string // the socket of `node status`; empty: none
}

func defaultPlaces() places {
	return places{
		images:    systemimage.DefaultDir,
		templates: "/usr/lib/keelson/manifests",
		charts:    chartsource.Dir,
		served:    "/run/keelson/etcd-served",
		started:   "/run/keelson/node-started",
		password:  nodepassword.DefaultFile,
		admission: "/etc/rancher/rke2/rke2-pss.yaml",
		listen:    supervisorapi.DefaultAddress,
		etcd:      "127.0.0.1:2379",
		kubelet:   "/var/lib/kubelet",
		api:       apiAddress,
		status:    status.DefaultSocket,
	}
}

// Addresses on this machine. RKE2's load balancer of the supervisor has the gate's port on machines without a server
// of their own (spec: lb-server-port); on a server it is free.
const (
	apiAddress  = "127.0.0.1:6443"
	gateAddress = "127.0.0.1:6444"
)

// Ports of servers.
const (
	apiPort        = "6443"
	supervisorPort = "9345"
)

// Config is what Run needs from outside.
type Config struct {
	Settings config.Config // as loaded; what the machine decides is resolved at start
	Version  string        // of this program
	Environ  []string      // the process's environment, for what children inherit
	Log      *slog.Logger
	Console  io.Writer // takes one line a milestone, for the machine's console
}

// Server is a server of a cluster.
type Server struct {
	cfg    Config
	places places
	log    *slog.Logger
	// background keeps something running for as long as the server does: longer than the step that begins it. Its
	// failure ends the server. Run sets it.
	background func(name string, run func(context.Context) error)

	ready   chan struct{} // closed when kube-apiserver serves
	patient chan struct{} // closed when the kubelet has started the pods that this takes

	chartKinds chan struct{} // closed when kube-apiserver serves HelmCharts

	// What earlier steps of the list leave for later ones. A step only reads what a step that it is listed after has
	// written, which is what orders the accesses.
	settings  config.Config
	images    *systemimage.Layout
	passwords token.Passwords
	pki       pki.Params
	member    etcd.Params
	voters    []string   // client URLs of the other members that vote
	learner   bool       // this server joins a cluster, and its member does not vote yet
	gate      *gate.Gate // nil on a server without kube-apiserver
	etcd      *clientv3.Client
	store     *etcdstore.Store
	rotator   *rotation.Rotator
	password  token.Secret // of this machine's node
	nodes     *nodepassword.Checker
	signer    signing.Signer
	tunnels   *tunnel.Server
	client    kubernetes.Interface
	api       *supervisorapi.Server
	others    map[string]string      // labels that the kubelet may not set
	etcds     *loadbalancer.Balancer // before the others' etcd, without one here
	balancer  *loadbalancer.Balancer // before the others' kube-apiservers, without one here
	lines     *tunnel.Set            // to the servers of those

	live          status.Live                          // what `node status` tells
	events        nodeevent.Recorder                   // on this machine's Node
	rejoined      atomic.Bool                          // this server's data was put away at this start
	directory     atomic.Pointer[nodeobject.Directory] // nil before kube-apiserver serves
	snapshots     atomic.Pointer[etcdsnapshot.Manager] // the same
	telemetry     atomic.Pointer[telemetry.Telemetry]  // the same
	registry      atomic.Pointer[mirror.Mirror]        // the same, and where the settings want none
	encryption    atomic.Pointer[reencryption.Manager] // the same
	recordChanged chan struct{}                        // tells the encryption announcer
	installed     sync.Mutex                           // one set of answers at a time, made of the latest
	renewing      sync.Mutex                           // one renewal at a time

	mu        sync.Mutex // guards what follows, and one line on the console at a time
	apis      []string   // host:port of the cluster's kube-apiservers, as last seen
	firstUsed string     // hash of an authority that was trusted because it was the first one seen
}

// New checks the configuration; nothing is started.
func New(cfg Config) (*Server, error) {
	if cfg.Console == nil || cfg.Log == nil {
		return nil, errors.New("server: a log and a console are needed")
	}
	if err := sequence.Check(new(Server).steps()); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	return &Server{
		cfg: cfg, places: defaultPlaces(), log: cfg.Log, ready: make(chan struct{}), patient: make(chan struct{}),
		chartKinds:    make(chan struct{}),
		recordChanged: make(chan struct{}, 1),
	}, nil
}

// Run starts the server and keeps it running until ctx is done or a part that cannot be restarted fails.
func (s *Server) Run(ctx context.Context) error {
	s.milestone("supervisor started")
	return s.run(ctx, s.steps(), func() { s.log.Info("started") })
}

// run goes through the steps, calls started (which may be nil) after the last, and stays until all that they have
// begun has ended.
func (s *Server) run(ctx context.Context, steps []sequence.Step, started func()) error {
	group, ctx := errgroup.WithContext(ctx)
	s.background = func(name string, run func(context.Context) error) {
		group.Go(func() error {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	s.startStatus(steps)
	group.Go(func() error {
		err := sequence.Run(ctx, steps, func(name string, took time.Duration, err error) {
			s.log.Info("step", "step", name, "dur", took.Round(time.Millisecond), "error", err)
		})
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("start: %w", err)
		}
		if err == nil {
			s.live.Done()
			if started != nil {
				started()
			}
		}
		return nil
	})
	return group.Wait()
}

// milestone tells the console how far the start has come.
func (s *Server) milestone(what string) {
	var up unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) // cannot fail for this clock
	s.console(fmt.Sprintf("%s (%.3f s)", what, float64(up.Nano())/1e9))
}

// console puts a line on the machine's console.
func (s *Server) console(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.cfg.Console, "keelson: node: %s\n", text)
}

// data, server and agent name paths below RKE2's three folders.
func (s *Server) data(parts ...string) string {
	return filepath.Join(append([]string{s.cfg.Settings.DataDir}, parts...)...)
}
func (s *Server) server(parts ...string) string {
	return s.data(append([]string{"server"}, parts...)...)
}
func (s *Server) agent(parts ...string) string {
	return s.data(append([]string{"agent"}, parts...)...)
}
