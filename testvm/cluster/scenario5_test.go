package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"keelson/testvm/cidata"
	"keelson/testvm/netns"
)

// Whoever may not join is refused, and the console says why and what to do. The clock of a namespace is the host's, and
// all machines here have one root: a server whose clock is off, and one of another version, are that of this test with
// somebody in between who changes what it says.
func TestScenario5Refusals(t *testing.T) {
	c := newCluster(t)
	s := c.add("server-1", "server", 1, nil)
	c.start(s)
	client := c.client(s)
	if err := client.NodesReady(within(t, readyLimit), s.name); err != nil {
		t.Fatal(err)
	}
	bootstrap, err := s.Supervisor().Fetch(within(t, changeLimit))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(bootstrap.ServerCA)
	hash := hex.EncodeToString(sum[:])
	imposter := impersonate(t, c.lan, bootstrap.ServerCA)
	expired := c.token(s, "--ttl", "1s")
	_, id, _ := strings.Cut(expired, "::")
	id, _, _ = strings.Cut(id, ".")

	n := 10
	for _, refused := range []struct {
		name, role, want string
		settings         map[string]any
	}{
		{"an agent with a wrong token", "agent", "server does not take the token.*; copy the token from /var/lib/rancher/rke2/server/token", map[string]any{"token": "wrong"}},
		{"a server with a wrong token", "server", "server does not take the token.*; copy the token from /var/lib/rancher/rke2/server/token", map[string]any{"token": "wrong"}},
		{"a wrong hash", "agent", "server is not the one that the token names.*; copy the token anew", map[string]any{"token": "K10" + strings.Repeat("ab", 32) + "::server:" + clusterToken}},
		{"no hash where one is demanded", "agent", "token does not name the cluster's authority.*; set the whole token", map[string]any{"require-token-ca-hash": true}},
		{"a token that has expired", "agent", "server does not take the bootstrap token: it says \"the bootstrap token " + id + " expired at 20[0-9TZ:-]+: make a new one with `node token create`\"; and set that one as token in this machine's settings", map[string]any{"token": expired}},
		{"a server with an agents' token", "server", "a bootstrap token joins agents.*; set the token from", map[string]any{"token": c.token(s)}},
		{"somebody else's certificate", "agent", "server answers with somebody else's certificate.*; check the address", map[string]any{
			"token": "K10" + hash + "::server:" + clusterToken, "server": fmt.Sprintf("https://%s:%d", netns.Gateway(), imposter),
		}},
		{"nobody there", "agent", "server cannot be reached.*; check the address and the network", map[string]any{"server": fmt.Sprintf("https://%s:9345", netns.Address(200))}},
		{"other networks", "server", "cluster-cidr is 10.52.0.0/16 here.*; set them as the cluster's other servers do", map[string]any{"cluster-cidr": "10.52.0.0/16"}},
	} {
		n++
		t.Run(refused.name, func(t *testing.T) { c.refuses(t, n, refused.role, refused.want, refused.settings) })
	}
	for _, between := range []struct {
		name, role, want string
		front            front
	}{
		{"a server an hour ahead", "agent", "clocks differ.*; set the clocks", front{clock: time.Hour}},
		{"a server an hour behind", "server", "clocks differ.*; set the clocks", front{clock: -time.Hour}},
		{"a server of an old version", "server", "versions do not fit: this server is .* and the cluster of v1.35.1; .*start this one with an image that fits", front{version: "v1.35.1"}},
		{"an agent newer than the servers", "agent", "versions do not fit: this agent is .* and the cluster of v1.36.1; .*update the servers first", front{version: "v1.36.1"}},
	} {
		n++
		t.Run(between.name, func(t *testing.T) {
			between.front.server = s
			between.front.stand(t, c.lan, bootstrap)
			c.refuses(t, n, between.role, between.want, map[string]any{"server": between.front.url(), "token": "K10" + hash + "::server:" + clusterToken})
		})
	}
	// Nobody of these is a node, or ever was one; a token that holds lets its bearer in.
	a := c.add("agent-1", "agent", 2, func(doc *cidata.CloudConfig) {
		joins(1)(doc)
		doc.RKE2["token"] = c.token(s)
	})
	c.start(a)
	c.whole(client)
}

// refuses starts a machine and waits until its console says why it is not taken in.
func (c *cluster) refuses(t *testing.T, n int, role, want string, settings map[string]any) {
	t.Helper()
	m := c.add(fmt.Sprintf("refused-%d", n), role, n, func(doc *cidata.CloudConfig) {
		joins(1)(doc)
		for key, value := range settings {
			doc.RKE2[key] = value
		}
	})
	defer delete(c.all, m.name)
	c.start(m)
	line, err := m.Expect(within(t, readyLimit), want)
	if err != nil {
		t.Error(err)
	}
	t.Log(line.Text)
	if err := m.Remove(); err != nil {
		t.Error(err)
	}
}

// token makes a token for agents on a server, as an operator does.
func (c *cluster) token(s *member, flags ...string) string {
	c.t.Helper()
	output, err := c.client(s).RunOnNode(within(c.t, changeLimit), workloadImage, s.name, append([]string{"/usr/bin/node", "token", "create"}, flags...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	lines := strings.Fields(output)
	return lines[len(lines)-1]
}

// impersonate listens on the LAN as somebody who knows what the cluster's authority looks like, but has not its key.
func impersonate(t *testing.T, lan *netns.LAN, ca []byte) (port int) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "rke2"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{netns.Gateway().AsSlice()}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := lan.Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		ReadHeaderTimeout: time.Minute,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				t.Error("a machine gave its token to an imposter")
			}
			if r.URL.Path == "/cacerts" {
				_, _ = w.Write(ca)
				return
			}
			http.NotFound(w, r)
		}),
	}
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-done
	})
	return listener.Addr().(*net.TCPAddr).Port
}
