// Package nodepassword binds a node's name to the machine that first took it: each machine has a password of its own,
// and the cluster keeps a hash of it in a Secret of kube-system (k3s pkg/nodepassword).
//
// It decides whether a request for a node's certificate may go on, and looks after the Secrets: they go with their
// Node. It issues nothing. node/server gives it a client once kube-apiserver serves; supervisorapi asks it before it
// signs for a kubelet.
package nodepassword

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson/node/token"
)

// The Secret of a node, as RKE2 has it.
const (
	suffix     = ".node-password.rke2"
	secretType = corev1.SecretType("rke2.cattle.io/node-password")
	hashKey    = "hash"
)

// Why a request may not go on.
var (
	ErrRejected = errors.New("node password does not fit the one this node name was first used with") // 403
	ErrNotReady = errors.New("node passwords cannot be checked before kube-apiserver serves")         // 503
	ErrNoNode   = errors.New("the node of this certificate does not exist")                           // 401
)

// Config is what a Checker needs.
type Config struct {
	Node string // this machine's own, which is known before kube-apiserver is
	File string // its password, /etc/rancher/node/password
	Log  *slog.Logger
}

// hashers bounds how many hashes are made at a time: each takes 32 MiB and a core, and kube-apiserver and etcd are
// beside.
func hashers() int { return min(8, max(2, runtime.GOMAXPROCS(0)/2)) }

// Checker judges passwords.
type Checker struct {
	cfg    Config
	slow   chan struct{}
	proven *proven

	mu      sync.Mutex // guards what follows
	client  kubernetes.Interface
	pending map[string][sha256.Size]byte // of passwords that could not be kept yet
}

// New makes a Checker that answers ErrNotReady for all nodes but its own until Use is called.
func New(cfg Config) (*Checker, error) {
	if cfg.Node == "" || cfg.File == "" || cfg.Log == nil {
		return nil, errors.New("node passwords: node, file and log must be set")
	}
	return &Checker{
		cfg: cfg, slow: make(chan struct{}, hashers()), proven: newProven(maxProven), pending: map[string][sha256.Size]byte{},
	}, nil
}

// Use gives the way to the cluster.
func (c *Checker) Use(client kubernetes.Interface) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.client = client
}

// Check judges what a machine shows that wants to be node. byCertificate tells that it has also shown that node's
// certificate: then the Node must still exist, because a deleted Node must not come back by an old certificate.
func (c *Checker) Check(ctx context.Context, node string, password token.Secret, byCertificate bool) error {
	c.mu.Lock()
	client := c.client
	c.mu.Unlock()
	if client == nil {
		if node != c.cfg.Node {
			return ErrNotReady
		}
		return c.checkOwn(password)
	}
	if byCertificate {
		if _, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{}); apierrors.IsNotFound(err) {
			return fmt.Errorf("node %s: %w", node, ErrNoNode)
		} else if err != nil {
			return fmt.Errorf("look for node %s: %w", node, err)
		}
	}
	secrets := client.CoreV1().Secrets(metav1.NamespaceSystem)
	secret, err := secrets.Get(ctx, strings.ToLower(node)+suffix, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return c.bind(ctx, client, node, password)
	case err != nil:
		return fmt.Errorf("read node password of %s: %w", node, err)
	}
	return c.verify(ctx, node, secret, password)
}

// Quick tells whether Check will most likely need no slow hash. It lets nobody in: a queue is chosen by it.
func (c *Checker) Quick(node string, password token.Secret) bool {
	return c.proven.fitted(node, password)
}

// checkOwn holds this machine's own node against its file.
func (c *Checker) checkOwn(password token.Secret) error {
	data, err := os.ReadFile(c.cfg.File)
	if err != nil {
		return fmt.Errorf("read node password: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(strings.TrimSpace(string(data))), []byte(password.Reveal())) != 1 {
		return fmt.Errorf("node %s: %w", c.cfg.Node, ErrRejected)
	}
	return nil
}

// verify holds password against a Secret. Only one that has fitted this very Secret is spared the slow hash: a wrong
// one costs it each time.
func (c *Checker) verify(ctx context.Context, node string, secret *corev1.Secret, password token.Secret) error {
	if c.proven.has(node, secret, password) {
		return nil
	}
	if err := c.enter(ctx); err != nil {
		return err
	}
	fits, err := token.Verify(string(secret.Data[hashKey]), password)
	c.leave()
	if err != nil {
		return fmt.Errorf("node password of %s, Secret %s: %w", node, secret.Name, err)
	}
	if !fits {
		return fmt.Errorf("node %s: %w", node, ErrRejected)
	}
	c.keep(node, secret, password)
	return nil
}

// keep remembers a password that fits.
func (c *Checker) keep(node string, secret *corev1.Secret, password token.Secret) {
	c.proven.keep(node, secret, password)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, node)
}

// bind keeps the password of a node that has none. Where a webhook that is down keeps the Secret from being stored,
// the machine may join all the same: the cluster might need it to get well (k3s issue 7654). From then on this server
// holds the name to that password, and tries again with each request.
func (c *Checker) bind(ctx context.Context, client kubernetes.Interface, node string, password token.Secret) error {
	now := c.proven.digest("pending", password.Reveal())
	c.mu.Lock()
	before, waits := c.pending[node]
	c.mu.Unlock()
	if waits && !hmac.Equal(before[:], now[:]) {
		return fmt.Errorf("node %s: %w", node, ErrRejected)
	}
	if err := c.enter(ctx); err != nil {
		return err
	}
	hash, err := token.Hash(password)
	c.leave()
	if err != nil {
		return err
	}
	yes := true
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: strings.ToLower(node) + suffix, Namespace: metav1.NamespaceSystem},
		Type:       secretType,
		Immutable:  &yes,
		Data:       map[string][]byte{hashKey: []byte(hash)},
	}
	made, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, secret, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err): // another server was faster, for this machine or for another
		if made, err = client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, secret.Name, metav1.GetOptions{}); err != nil {
			return fmt.Errorf("read node password of %s: %w", node, err)
		}
		return c.verify(ctx, node, made, password)
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("keep node password of %s: %w", node, ctx.Err())
	case err != nil && !webhookIsDown(err):
		return fmt.Errorf("keep node password of %s: %w", node, err)
	case err != nil:
		if !waits && c.pendingFull() {
			return fmt.Errorf("keep node password of %s: %d other nodes wait for it already: %w", node, maxPending, err)
		}
		c.cfg.Log.Warn("node password cannot be kept in the cluster yet; this server holds the node to it", "node", node, "error", err)
		c.mu.Lock()
		c.pending[node] = now
		c.mu.Unlock()
		return nil
	}
	c.keep(node, made, password)
	return nil
}

// maxPending bounds how many machines may join while the cluster cannot keep their passwords.
const maxPending = 16

func (c *Checker) pendingFull() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending) >= maxPending
}

// webhookIsDown tells a Secret that an admission webhook kept from being stored by not answering (k8s.io/apiserver
// pkg/admission/plugin/webhook/errors) from every other failure.
func webhookIsDown(err error) bool {
	return apierrors.IsInternalError(err) && strings.Contains(err.Error(), "failed calling webhook")
}

func (c *Checker) enter(ctx context.Context) error {
	select {
	case c.slow <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("check node password: %w", ctx.Err())
	}
}

func (c *Checker) leave() { <-c.slow }

// forget drops what is remembered of a node that was deleted.
func (c *Checker) forget(node string) {
	c.proven.forget(node)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, node)
}
