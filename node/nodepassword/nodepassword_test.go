package nodepassword

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"keelson/node/token"
)

// checker is one of the server cp-1, with a cluster of the given objects behind it.
func checker(t *testing.T, objects ...runtime.Object) (*Checker, *fake.Clientset) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("own-password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Node: "cp-1", File: file, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(objects...)
	return c, client
}

func node(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("node-" + name), CreationTimestamp: metav1.Now()}}
}

func secretOf(t *testing.T, name, password string, made time.Time) *corev1.Secret {
	t.Helper()
	hash, err := token.Hash(token.Secret(password))
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name + suffix, Namespace: "kube-system", UID: "1", CreationTimestamp: metav1.NewTime(made)},
		Type:       secretType, Data: map[string][]byte{"hash": []byte(hash)},
	}
}

func TestBeforeTheCluster(t *testing.T) {
	c, _ := checker(t)
	for _, tt := range []struct {
		name, node, password string
		want                 error
	}{
		{"own", "cp-1", "own-password", nil},
		{"own, wrong", "cp-1", "other", ErrRejected},
		{"another's", "agent-1", "own-password", ErrNotReady},
	} {
		if err := c.Check(t.Context(), tt.node, token.Secret(tt.password), false); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	if err := c.Run(t.Context()); !errors.Is(err, ErrNotReady) {
		t.Errorf("run without a cluster: got %v", err)
	}
}

func TestFirstPasswordBindsTheName(t *testing.T) {
	c, client := checker(t)
	c.Use(client)
	if err := c.Check(t.Context(), "Agent-1", "first", false); err != nil {
		t.Fatal(err)
	}
	secret, err := client.CoreV1().Secrets("kube-system").Get(t.Context(), "agent-1.node-password.rke2", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if fits, err := token.Verify(string(secret.Data["hash"]), "first"); !fits || err != nil || secret.Type != secretType || secret.Immutable == nil || !*secret.Immutable {
		t.Errorf("the Secret is not RKE2's: fits %v, %v, %s", fits, err, secret.Type)
	}
	for password, want := range map[token.Secret]error{"first": nil, "second": ErrRejected, "": ErrRejected} {
		if err := c.Check(t.Context(), "Agent-1", password, false); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", password.Reveal(), err, want)
		}
	}
	// Another server knows nothing but the Secret.
	other, _ := checker(t)
	other.Use(client)
	for password, want := range map[token.Secret]error{"first": nil, "second": ErrRejected} {
		if err := other.Check(t.Context(), "Agent-1", password, false); !errors.Is(err, want) {
			t.Errorf("another server, %q: got %v, want %v", password.Reveal(), err, want)
		}
	}
}

func TestCertificateOfADeletedNode(t *testing.T) {
	c, client := checker(t, node("agent-1"))
	c.Use(client)
	if err := c.Check(t.Context(), "agent-1", "first", true); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(t.Context(), "agent-2", "first", true); !errors.Is(err, ErrNoNode) {
		t.Errorf("got %v, want %v", err, ErrNoNode)
	}
}

// fails makes one verb on Secrets fail.
func fails(client *fake.Clientset, verb string, err error) {
	client.PrependReactor(verb, "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, err })
}

// A webhook that is down must not keep machines out that the cluster needs; the name is bound all the same.
func TestSecretThatCannotBeKept(t *testing.T) {
	c, client := checker(t)
	c.Use(client)
	fails(client, "create", apierrors.NewInternalError(errors.New("failed calling webhook")))
	for _, tt := range []struct {
		password token.Secret
		want     error
	}{{"first", nil}, {"second", ErrRejected}, {"first", nil}} {
		if err := c.Check(t.Context(), "agent-1", tt.password, false); !errors.Is(err, tt.want) {
			t.Errorf("%q: got %v, want %v", tt.password.Reveal(), err, tt.want)
		}
	}
	client.ReactionChain = client.ReactionChain[1:] // the webhook is back
	if err := c.Check(t.Context(), "agent-1", "first", false); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Secrets("kube-system").Get(t.Context(), "agent-1"+suffix, metav1.GetOptions{}); err != nil {
		t.Errorf("the password was not kept later: %v", err)
	}
	if len(c.pending) != 0 {
		t.Error("it is still pending")
	}
}

// Only a webhook that is down lets a machine in whose password was not kept, and not for any number of machines.
func TestNotEveryFailureLetsMachinesIn(t *testing.T) {
	c, client := checker(t)
	c.Use(client)
	fails(client, "create", apierrors.NewInternalError(errors.New("etcdserver: mvcc: database space exceeded")))
	if err := c.Check(t.Context(), "agent-1", "first", false); err == nil {
		t.Error("let in although etcd took nothing")
	}
	fails(client, "create", apierrors.NewInternalError(errors.New("failed calling webhook")))
	for i := range maxPending {
		c.pending[string(rune('a'+i))] = [32]byte{}
	}
	if err := c.Check(t.Context(), "agent-1", "first", false); err == nil {
		t.Errorf("let in beside %d that wait", maxPending)
	}
}

// What cannot be read is no reason to let anybody in.
func TestFailsClosed(t *testing.T) {
	c, client := checker(t)
	c.Use(client)
	fails(client, "get", apierrors.NewInternalError(errors.New("etcd is away")))
	if err := c.Check(t.Context(), "agent-1", "first", false); err == nil || errors.Is(err, ErrRejected) {
		t.Errorf("got %v, want the failure", err)
	}
	broken := secretOf(t, "agent-2", "x", time.Now())
	broken.Data["hash"] = []byte("$9:nonsense")
	c, client = checker(t, broken)
	c.Use(client)
	if err := c.Check(t.Context(), "agent-2", "x", false); !errors.Is(err, token.ErrHash) {
		t.Errorf("broken hash: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c, client = checker(t, secretOf(t, "agent-3", "x", time.Now()))
	c.Use(client)
	c.slow <- struct{}{}
	c.slow <- struct{}{}
	if err := c.Check(ctx, "agent-3", "x", false); !errors.Is(err, context.Canceled) {
		t.Errorf("while others hash: got %v", err)
	}
}

// Two servers, one name: whoever comes second is held to what the first has kept.
func TestAnotherServerWasFaster(t *testing.T) {
	c, client := checker(t)
	c.Use(client)
	client.PrependReactor("create", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		client.ReactionChain = client.ReactionChain[1:]
		if err := client.Tracker().Add(secretOf(t, "agent-1", "theirs", time.Now())); err != nil {
			t.Error(err)
		}
		return false, nil, nil
	})
	if err := c.Check(t.Context(), "agent-1", "ours", false); !errors.Is(err, ErrRejected) {
		t.Errorf("got %v, want %v", err, ErrRejected)
	}
}

func TestNewNeedsAll(t *testing.T) {
	for _, cfg := range []Config{{}, {Node: "a"}, {Node: "a", File: "b"}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

func TestEnsureFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node", "password")
	first, err := EnsureFile(path)
	if err != nil || len(first.Reveal()) != 32 {
		t.Fatalf("got %d characters, %v, want 32", len(first.Reveal()), err)
	}
	again, err := EnsureFile(path)
	if err != nil || again != first {
		t.Errorf("the second start has another password, %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureFile(path); err == nil {
		t.Error("an empty file was taken")
	}
	if _, err := EnsureFile("/dev/null/password"); err == nil {
		t.Error("an impossible path was taken")
	}
}
