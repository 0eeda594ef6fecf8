package cluster

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"keelson/testvm/access"
	"keelson/testvm/netns"
)

// front stands before a server on the LAN with a certificate of the cluster's own, and changes what it says: its clock,
// or its version. So a machine meets a server whose clock is off, or one of another version, though all machines here
// have one clock and one image.
type front struct {
	server  *member
	clock   time.Duration // how far the server's clock is ahead
	version string        // of its Kubernetes; empty: the server's
}

// stand listens where machines look for a supervisor, and where it matters for a kube-apiserver, until the test ends.
func (f *front) stand(t *testing.T, lan *netns.LAN, bootstrap *access.Bootstrap) {
	t.Helper()
	certificate := mint(t, bootstrap)
	to, err := url.Parse(f.server.Supervisor().URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // loopback, to a machine of ours
	proxy.ModifyResponse = f.change
	api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"gitVersion": f.version})
	})
	for port, handler := range map[int]http.Handler{9345: proxy, 6443: api} {
		listener, err := lan.Listen(port)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{
			ReadHeaderTimeout: time.Minute, Handler: handler, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		}
		done := make(chan error, 1)
		go func() { done <- server.ServeTLS(listener, "", "") }()
		t.Cleanup(func() {
			if err := server.Close(); err != nil {
				t.Error(err)
			}
			<-done
		})
	}
}

func (f *front) url() string { return fmt.Sprintf("https://%s:9345", netns.Gateway()) }

// change changes an answer.
func (f *front) change(r *http.Response) error {
	r.Header.Set("Date", time.Now().Add(f.clock).UTC().Format(http.TimeFormat))
	if f.version == "" {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	switch path := r.Request.URL.Path; {
	case strings.HasSuffix(path, "/config"):
		var document map[string]any
		if err := json.Unmarshal(body, &document); err != nil {
			return err
		}
		if document["KubernetesVersion"] == nil {
			return fmt.Errorf("%s tells no version", path)
		}
		document["KubernetesVersion"] = f.version
		if body, err = json.Marshal(document); err != nil {
			return err
		}
	case strings.HasSuffix(path, "/apiservers"):
		if body, err = json.Marshal([]string{fmt.Sprintf("%s:6443", netns.Gateway())}); err != nil {
			return err
		}
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	r.Header.Set("Content-Length", fmt.Sprint(len(body)))
	return nil
}

// mint makes a serving certificate of the cluster.
func mint(t *testing.T, bootstrap *access.Bootstrap) tls.Certificate {
	t.Helper()
	ca, err := tls.X509KeyPair(bootstrap.ServerCA, bootstrap.ServerCAKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "rke2"}, NotBefore: ca.Leaf.NotBefore, NotAfter: ca.Leaf.NotAfter,
		IPAddresses: []net.IP{netns.Gateway().AsSlice(), net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost", "kubernetes"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca.Leaf, key.Public(), ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	chain := [][]byte{der}
	for block, rest := pem.Decode(bootstrap.ServerCA); block != nil; block, rest = pem.Decode(rest) {
		chain = append(chain, block.Bytes)
	}
	return tls.Certificate{Certificate: chain, PrivateKey: key}
}
