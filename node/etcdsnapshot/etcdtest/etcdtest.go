// Package etcdtest runs real etcd servers inside a test, over loopback with TLS both ways, as members of a Keelson
// cluster run. Only tests use it.
package etcdtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keelson/node/etcd"
)

// Member is a running etcd server.
type Member struct {
	Name, Dir, Endpoint, PeerURL string
	Client                       *clientv3.Client // knows this member only
	server                       *embed.Etcd
}

// Stop ends the server; its data stays.
func (m *Member) Stop() {
	if m.server == nil {
		return
	}
	_ = m.Client.Close()
	m.server.Close()
	m.server = nil
}

// Start runs n members of one cluster and waits until each serves. change may be nil.
func Start(t testing.TB, n int, change func(i int, c *embed.Config)) []*Member {
	t.Helper()
	dir := t.TempDir()
	writeCertificates(t, dir)
	members := make([]*Member, n)
	var initial []string
	for i := range members {
		name := fmt.Sprintf("m%d", i+1)
		members[i] = &Member{Name: name, Dir: filepath.Join(dir, name), Endpoint: freeURL(t), PeerURL: freeURL(t)}
		initial = append(initial, name+"="+members[i].PeerURL)
	}
	for i, m := range members {
		m.Client = NewClient(t, dir, m.Endpoint)
		c := Config(t, m, dir)
		c.InitialCluster = strings.Join(initial, ",")
		if change != nil {
			change(i, c)
		}
		server, err := Embed(c)
		if err != nil {
			t.Fatal(err)
		}
		m.server = server
		t.Cleanup(m.Stop)
	}
	for _, m := range members {
		await(t, m)
	}
	return members
}

func await(t testing.TB, m *Member) {
	t.Helper()
	select {
	case <-m.server.Server.ReadyNotify():
	case err := <-m.server.Err():
		t.Fatal(err)
	case <-time.After(time.Minute):
		t.Fatal("etcd is not ready after a minute")
	}
}

// Serve runs etcd on a member's data as it is.
func Serve(t testing.TB, m *Member) {
	t.Helper()
	dir := t.TempDir()
	writeCertificates(t, dir)
	m.Client = NewClient(t, dir, m.Endpoint)
	server, err := Embed(Config(t, m, dir))
	if err != nil {
		t.Fatal(err)
	}
	m.server = server
	t.Cleanup(m.Stop)
	await(t, m)
}

// Free returns a member that is yet to be served, on data in dir.
func Free(t testing.TB, name, dir string) *Member {
	return &Member{Name: name, Dir: dir, Endpoint: freeURL(t), PeerURL: freeURL(t)}
}

// Embed is embed.StartEtcd for a process that does not end with its member. A member that was removed panics when it is
// asked for its status before it has gone (etcd 3.7, IsLocalMemberLearner); on a machine only etcd's own process ends.
func Embed(c *embed.Config) (*embed.Etcd, error) {
	c.GRPCAdditionalServerOptions = append(c.GRPCAdditionalServerOptions, grpc.ChainUnaryInterceptor(survive))
	return embed.StartEtcd(c)
}

// survive answers what a client sees of a process that ended.
func survive(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			answer, err = nil, status.Errorf(codes.Unavailable, "etcd ended: %v", cause)
		}
	}()
	return handle(ctx, request)
}

// Config is what a member runs with.
func Config(t testing.TB, m *Member, certificates string) *embed.Config {
	t.Helper()
	c := embed.NewConfig()
	c.Name, c.Dir, c.LogLevel = m.Name, m.Dir, "fatal"
	c.TickMs, c.ElectionMs = 50, 500
	client, peer := parse(t, m.Endpoint), parse(t, m.PeerURL)
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = m.Name + "=" + m.PeerURL
	tls := transport.TLSInfo{
		CertFile: filepath.Join(certificates, "leaf.crt"), KeyFile: filepath.Join(certificates, "leaf.key"),
		TrustedCAFile: filepath.Join(certificates, "ca.crt"), ClientCertAuth: true,
	}
	c.ClientTLSInfo, c.PeerTLSInfo = tls, tls
	return c
}

// NewClient is node/etcd's client with the test's certificates.
func NewClient(t testing.TB, certificates string, endpoints ...string) *clientv3.Client {
	t.Helper()
	c, err := etcd.NewClient(context.Background(), etcd.Connection{
		Endpoints: endpoints,
		CAFile:    filepath.Join(certificates, "ca.crt"),
		CertFile:  filepath.Join(certificates, "leaf.crt"), KeyFile: filepath.Join(certificates, "leaf.key"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func parse(t testing.TB, text string) url.URL {
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return *u
}

func freeURL(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "https://" + l.Addr().String()
}

// writeCertificates makes a CA and one leaf that is server and client.
func writeCertificates(t testing.TB, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := func(ca bool) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: fmt.Sprint("etcdtest ca=", ca)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: ca, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
	}
	write := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sign := func(c *x509.Certificate) []byte {
		der, err := x509.CreateCertificate(rand.Reader, c, template(true), &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write("ca.crt", "CERTIFICATE", sign(template(true)))
	write("leaf.crt", "CERTIFICATE", sign(template(false)))
	write("leaf.key", "EC PRIVATE KEY", private)
}
