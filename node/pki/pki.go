// Package pki makes every certificate, key and kubeconfig of a server and its node, at the paths, with the names and
// by the rules of RKE2 (k3s pkg/daemons/control/deps, rancher/dynamiclistener cert).
//
// Ensure is idempotent: it makes what is missing, re-issues what is due, and leaves the rest. It never replaces a
// certificate authority, never talks to the network, and takes names, addresses and the time from its caller,
// node/server. The static pods, the kubelet and supervisorapi use what it makes.
package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"keelson/node/file"
)

// Params says where to write and what to put in.
type Params struct {
	ServerDir string // <data-dir>/server
	AgentDir  string // <data-dir>/agent

	NodeName      string
	Addresses     []netip.Addr // node, external and advertised addresses
	SANs          []string     // tls-san: names and addresses
	ServiceIPs    []netip.Addr // the kubernetes Service, one a family
	ClusterDomain string

	APIServer      string      // URL in kubeconfigs; empty: https://127.0.0.1:6443
	LocalAPIServer string      // URL in the node's own kubeconfigs (<agent>); empty: as APIServer
	Kubeconfig     string      // the administrator's kubeconfig; empty: none is written
	KubeconfigMode fs.FileMode // zero: 0600

	// ClusterExists forbids making authorities and the service account key: on a node with data they can only be
	// lost, and new ones would cut it off from its own cluster.
	ClusterExists bool

	Now time.Time
}

// ErrLost is a file that a cluster with data cannot do without.
var ErrLost = errors.New("is gone, and this node holds data of a cluster that was made with it: put the file back, or remove the cluster's data")

// Result is what an Ensure did.
type Result struct {
	Written []string  // files that are new or changed, by path
	Renew   time.Time // when the first leaf certificate becomes due; call Ensure again then
}

// Ensure makes everything there is: certificates and kubeconfigs, and at the same time the service account key,
// whose generation is the one slow part.
func Ensure(p Params) (Result, error) {
	if key, err := readOptional(p.tls("service.key")); err == nil && key == nil && p.ClusterExists {
		return Result{}, fmt.Errorf("%s %w", p.tls("service.key"), ErrLost)
	}
	if err := prepare(&p); err != nil {
		return Result{}, err
	}
	var keyFiles []string
	done := make(chan error, 1)
	go func() {
		var err error
		keyFiles, err = EnsureServiceKey(p.ServerDir)
		done <- err
	}()
	r, err := certificates(p)
	if keyErr := <-done; err == nil {
		err = keyErr
	}
	if err != nil {
		return Result{}, err
	}
	r.Written = append(r.Written, keyFiles...)
	return r, nil
}

// EnsureCertificates makes the authorities, the leaf certificates and the kubeconfigs, in one batch of writes.
func EnsureCertificates(p Params) (Result, error) {
	if err := prepare(&p); err != nil {
		return Result{}, err
	}
	return certificates(p)
}

// Folders lists the folders that Ensure writes into. What a power cut left in them is for file.Sweep, once, before
// anything else of a new process writes: Ensure itself runs again beside other writers when certificates are due.
func Folders(serverDir, agentDir string) []string {
	p := Params{ServerDir: serverDir, AgentDir: agentDir}
	return []string{
		serverDir, p.cred(), p.tls(), p.tls("etcd"), p.tls("kube-scheduler"), p.tls("kube-controller-manager"),
		p.tls("temporary-certs"), // kube-apiserver's --cert-dir, into which it would write a certificate of its own
		agentDir,
	}
}

// prepare checks the parameters and makes the folders.
func prepare(p *Params) error {
	if p.Now.IsZero() {
		p.Now = time.Now()
	}
	if p.NodeName == "" || p.ClusterDomain == "" || p.ServerDir == "" || p.AgentDir == "" {
		return fmt.Errorf("ensure certificates: node name, cluster domain and folders must be set")
	}
	for _, dir := range Folders(p.ServerDir, p.AgentDir) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("ensure certificates: %w", err)
		}
	}
	return nil
}

func certificates(p Params) (Result, error) {
	var b batch
	authorities := map[string]*authority{}
	for _, spec := range authoritySpecs() {
		ca, err := ensureAuthority(&b, p, spec)
		if err != nil {
			return Result{}, err
		}
		authorities[spec.file] = ca
	}
	clientCA, serverCA := authorities["client-ca"], authorities["server-ca"]
	b.put(p.tls("client-ca.nochain.crt"), firstPEM(clientCA.bundle), 0o644)
	b.put(p.tls("server-ca.nochain.crt"), firstPEM(serverCA.bundle), 0o644)
	b.put(filepath.Join(p.AgentDir, "client-ca.crt"), clientCA.bundle, 0o600)
	b.put(filepath.Join(p.AgentDir, "server-ca.crt"), serverCA.bundle, 0o600)

	var r Result
	for _, spec := range leafSpecs(p) {
		due, err := ensureLeaf(&b, p, spec, authorities[spec.ca])
		if err != nil {
			return Result{}, err
		}
		if r.Renew.IsZero() || due.Before(r.Renew) {
			r.Renew = due
		}
	}
	if err := kubeconfigs(&b, p, serverCA); err != nil {
		return Result{}, err
	}
	if err := file.WriteAll(b.changed); err != nil {
		return Result{}, fmt.Errorf("ensure certificates: %w", err)
	}
	for _, f := range b.changed {
		r.Written = append(r.Written, f.Path)
	}
	return r, nil
}

func (p Params) tls(parts ...string) string {
	return filepath.Join(slices.Concat([]string{p.ServerDir, "tls"}, parts)...)
}

func (p Params) cred(parts ...string) string {
	return filepath.Join(slices.Concat([]string{p.ServerDir, "cred"}, parts)...)
}

// batch collects the files that must be written, and remembers the content of those that are already right.
type batch struct {
	changed []file.File
	content map[string][]byte
}

func (b *batch) put(path string, data []byte, mode fs.FileMode) {
	if b.content == nil {
		b.content = map[string][]byte{}
	}
	b.content[path] = data
	if f := (file.File{Path: path, Data: data, Mode: mode}); !file.Same(f) {
		b.changed = append(b.changed, f)
	}
}
