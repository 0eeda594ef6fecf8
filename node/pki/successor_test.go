package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"slices"
	"testing"
	"time"
)

// heir is an authority of a server and one that Succeed made for it.
func heir(t *testing.T) (p Params, bundle, key, newBundle, newKey []byte) {
	t.Helper()
	p = params(t)
	ensure(t, p)
	bundle, key = []byte(readText(t, p.tls("server-ca.crt"))), []byte(readText(t, p.tls("server-ca.key")))
	newBundle, newKey, err := Succeed(bundle, key, p.Now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return p, bundle, key, newBundle, newKey
}

func TestSuccessorIsAccepted(t *testing.T) {
	p, bundle, key, newBundle, newKey := heir(t)
	now := p.Now.Add(2 * time.Hour)
	if err := CheckSuccessor(bundle, newBundle, newKey, now); err != nil {
		t.Error(err)
	}
	again, againKey, err := Succeed(newBundle, newKey, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckSuccessor(newBundle, again, againKey, now); err != nil {
		t.Errorf("a second succession: %v", err)
	}
	if err := CheckSuccessor(bundle, bundle, key, now); err != nil {
		t.Errorf("the same authority: %v", err)
	}
	if err := CheckAuthority(newBundle, newKey); err != nil {
		t.Error(err)
	}
}

func TestSuccessorIsRefused(t *testing.T) {
	p, bundle, key, newBundle, newKey := heir(t)
	_, foreign, foreignKey, foreignHeir, foreignHeirKey := heir(t)
	leaf := []byte(readText(t, p.tls("serving-kube-apiserver.crt")))
	leafKey := []byte(readText(t, p.tls("serving-kube-apiserver.key")))
	for _, c := range []struct {
		name            string
		old, bundle, by []byte
		at              time.Time
		want            error
	}{
		{"another's key", bundle, newBundle, key, p.Now, ErrPair},
		{"alone", bundle, foreign, foreignKey, p.Now, ErrAlone},
		{"another cluster's", bundle, foreignHeir, foreignHeirKey, p.Now, ErrNotHeir},
		{"its chain is another's", bundle, slices.Concat(foreign, bundle), foreignKey, p.Now, ErrNotHeir},
		{"ended", bundle, newBundle, newKey, p.Now.Add(2 * caLife), ErrNotHeir},
		{"no authority", bundle, leaf, leafKey, p.Now, nil},
		{"no certificate", bundle, []byte("x"), newKey, p.Now, nil},
		{"no key", bundle, newBundle, []byte("x"), p.Now, nil},
		{"old one unreadable", []byte("x"), newBundle, newKey, p.Now, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := CheckSuccessor(c.old, c.bundle, c.by, c.at)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	if _, _, err := Succeed(bundle, newKey, p.Now); !errors.Is(err, ErrPair) {
		t.Errorf("succeed with another's key: got %v", err)
	}
}

// While machines change over one by one, each must trust what the others serve: whoever knows the old authority alone
// must accept a certificate of the new one, and whoever has the new bundle one of the old.
func TestBothSidesOfASuccessionTalk(t *testing.T) {
	p, bundle, _, newBundle, newKey := heir(t)
	old := serving(t, p)
	for path, data := range map[string][]byte{p.tls("server-ca.crt"): newBundle, p.tls("server-ca.key"): newKey} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.Now = p.Now.Add(2 * time.Hour)
	if r := ensure(t, p); !slices.Contains(r.Written, p.tls("serving-kube-apiserver.crt")) {
		t.Errorf("the leaf of the old authority was kept: wrote %v", r.Written)
	}
	renewed := serving(t, p)
	for name, c := range map[string]struct {
		trusts []byte
		serves tls.Certificate
	}{
		"old client, new server": {bundle, renewed}, "new client, old server": {newBundle, old}, "new client, new server": {newBundle, renewed},
	} {
		if err := handshake(t, c.trusts, c.serves, p.Now); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func serving(t *testing.T, p Params) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(p.tls("serving-kube-apiserver.crt"), p.tls("serving-kube-apiserver.key"))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func handshake(t *testing.T, trusts []byte, serves tls.Certificate, now time.Time) error {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(trusts)
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	server := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{serves}})
	ended := make(chan error, 1)
	go func() { ended <- server.HandshakeContext(t.Context()) }()
	client := tls.Client(b, &tls.Config{RootCAs: roots, ServerName: "kubernetes", Time: func() time.Time { return now }})
	err := client.HandshakeContext(t.Context())
	b.Close()
	<-ended
	return err
}

func TestServiceKeysSucceed(t *testing.T) {
	p := params(t)
	if _, err := EnsureServiceKey(p.ServerDir); err != nil {
		t.Fatal(err)
	}
	old := []byte(readText(t, p.tls("service.key")))
	next, err := SucceedServiceKey(old)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckServiceKeys(old, next); err != nil {
		t.Error(err)
	}
	alone, err := newServiceKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		old, next []byte
		want      error
	}{
		"a new one alone": {old, alone, ErrKeysLost}, "none": {old, nil, ErrKeysLost}, "old unreadable": {[]byte("x"), next, nil},
		"new unreadable": {old, []byte("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"), nil},
	} {
		if err := CheckServiceKeys(c.old, c.next); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if _, err := SucceedServiceKey([]byte("x")); err == nil {
		t.Error("an unreadable key has a successor")
	}
	// The first key signs from now on.
	if err := os.WriteFile(p.tls("service.key"), next, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureServiceKey(p.ServerDir); err != nil {
		t.Fatal(err)
	}
	if got := readText(t, p.tls("service.current.key")); got != string(firstKeyPEM(next)) || got == string(firstKeyPEM(old)) {
		t.Error("the new key does not sign")
	}
}
