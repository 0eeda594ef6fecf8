package nodepassword

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"keelson/node/token"
)

func kept(uid types.UID, version, hash string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{UID: uid, ResourceVersion: version},
		Data:       map[string][]byte{hashKey: []byte(hash)},
	}
}

func TestProvenIsOfOneSecretAndPassword(t *testing.T) {
	p := newProven(10)
	p.keep("W", kept("1", "1", "hash"), "password")
	for _, tt := range []struct {
		name, node string
		secret     *corev1.Secret
		password   token.Secret
		want       bool
	}{
		{"the same", "W", kept("1", "1", "hash"), "password", true},
		{"in lower case, as the Secret is called", "w", kept("1", "1", "hash"), "password", true},
		{"the Secret got an owner", "w", kept("1", "2", "hash"), "password", true},
		{"another password", "w", kept("1", "1", "hash"), "passwore", false},
		{"another node", "w-2", kept("1", "1", "hash"), "password", false},
		{"the Secret was made anew", "w", kept("2", "3", "hash"), "password", false},
		{"the Secret says something else", "w", kept("1", "2", "other"), "password", false},
		{"one runs into the next", "w", kept("1", "1", "hashp"), "assword", false},
	} {
		if got := p.has(tt.node, tt.secret, tt.password); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	for password, want := range map[token.Secret]bool{"password": true, "passwore": false, "": false} {
		if got := p.fitted("W", password); got != want {
			t.Errorf("fitted %q: got %v, want %v", password.Reveal(), got, want)
		}
	}
	other := newProven(10)
	if other.fitted("w", "password") {
		t.Error("a node that was never asked about has fitted")
	}
	if other.against(kept("1", "1", "hash"), "password") == p.against(kept("1", "1", "hash"), "password") {
		t.Error("two processes have the same digest")
	}
	p.forget("w")
	if p.has("W", kept("1", "1", "hash"), "password") || p.recent.Len() != 0 {
		t.Error("a node that was forgotten is known")
	}
	p.forget("w")
}

// Who has not asked for longest goes first, whatever comes in between.
func TestProvenIsBounded(t *testing.T) {
	const most = 3
	p, secret := newProven(most), kept("1", "1", "hash")
	p.keep("stays", secret, "x")
	for i := range 100 {
		p.keep(fmt.Sprintf("w-%d", i), secret, "x")
		p.keep(fmt.Sprintf("w-%d", i), secret, "y")
		if !p.has("stays", secret, "x") {
			t.Fatalf("after %d others, who asks all the time is forgotten", i+1)
		}
		if len(p.byNode) > most || p.recent.Len() != len(p.byNode) {
			t.Fatalf("%d and %d are remembered, want at most %d", len(p.byNode), p.recent.Len(), most)
		}
	}
	for name, want := range map[string]bool{"w-99": true, "w-98": true, "w-97": false} {
		if got := p.has(name, secret, "y"); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// hashed tells whether a check waits for a slow hash: all the slots for it are taken.
func hashed(t *testing.T, c *Checker, name string, password token.Secret) bool {
	t.Helper()
	for range cap(c.slow) {
		c.slow <- struct{}{}
	}
	defer func() {
		for range cap(c.slow) {
			<-c.slow
		}
	}()
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { ended <- c.Check(ctx, name, password, false) }()
	synctest.Wait()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return false
	default:
	}
	cancel()
	if err := <-ended; err == nil {
		t.Errorf("%s: let in without a hash", name)
	}
	return true
}

// A node's first certificate costs a slow hash, its next none, until its Secret is another; a wrong password always.
func TestOneHashForAllCertificates(t *testing.T) { synctest.Test(t, oneHashForAllCertificates) }

func oneHashForAllCertificates(t *testing.T) {
	secret := secretOf(t, "w", "right", time.Now())
	c, client := checker(t, node("w"), secret)
	c.Use(client)
	if !hashed(t, c, "w", "right") {
		t.Error("the first check took no hash")
	}
	if err := c.Check(t.Context(), "w", "right", false); err != nil {
		t.Fatal(err)
	}
	if hashed(t, c, "w", "right") {
		t.Error("the second check took a hash")
	}
	for range 2 {
		if err := c.Check(t.Context(), "w", "wrong", false); !errors.Is(err, ErrRejected) {
			t.Errorf("wrong: got %v, want %v", err, ErrRejected)
		}
		if !hashed(t, c, "w", "wrong") {
			t.Error("a wrong password took no hash")
		}
	}
	if hashed(t, c, "w", "right") {
		t.Error("wrong passwords had the right one forgotten")
	}
	// On another server the Secret was made anew, for another machine.
	next := secretOf(t, "w", "theirs", time.Now())
	next.UID = "2"
	if err := client.Tracker().Update(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, next, "kube-system"); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(t.Context(), "w", "right", false); !errors.Is(err, ErrRejected) {
		t.Errorf("the password of before: got %v, want %v", err, ErrRejected)
	}
	if err := c.Check(t.Context(), "w", "theirs", false); err != nil {
		t.Error(err)
	}
}
