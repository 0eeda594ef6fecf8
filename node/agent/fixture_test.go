package agent

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"

	"keelson/node/pki"
	"keelson/node/token"
	"keelson/node/tunnel"
)

const agentPassword = "agent-password"

// cluster is the servers of a cluster, as far as agents see them: real authorities and certificates, TLS, and the
// protocol of :9345 on several addresses of the loopback network.
type cluster struct {
	t       *testing.T
	dir     string // of a server
	pki     pki.Params
	servers []*serverOf
	port    string // of the supervisors
	apiPort string
	tunnels *tunnel.Server

	mu        sync.Mutex // guards what follows
	passwords map[string]string
	notReady  int // how many questions for readiness are still to be answered no
	life      time.Duration
	signed    map[string]int
	version   string
	unknown   map[string]bool // nodes whose certificate is not taken any more
	password  string          // of agents
	patch     []byte          // of the Node
	patcher   string
	events    []string // who writes, and the event
	address   string   // of the Node
}

// serverOf is one server: a supervisor and a kube-apiserver.
type serverOf struct {
	address string
	cancel  context.CancelFunc
	ended   sync.WaitGroup
}

func (s *serverOf) kill() {
	s.cancel()
	s.ended.Wait()
}

func newCluster(t *testing.T, servers int) *cluster {
	t.Helper()
	c := &cluster{
		t: t, dir: t.TempDir(), passwords: map[string]string{}, life: 365 * 24 * time.Hour, signed: map[string]int{},
		version: "v1.37.2+keelson1", unknown: map[string]bool{}, password: agentPassword,
	}
	var addresses []netip.Addr
	for i := range servers {
		addresses = append(addresses, netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}))
	}
	c.pki = pki.Params{ServerDir: c.dir + "/server", AgentDir: c.dir + "/agent", NodeName: "cp-1", Addresses: addresses, ClusterDomain: "cluster.local"}
	if _, err := pki.Ensure(c.pki); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.tunnels, err = tunnel.NewServer(tunnel.ServerConfig{NodeOf: func(string) (string, bool) { return "", false }, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	for i, a := range addresses {
		s := &serverOf{address: a.String()}
		c.servers = append(c.servers, s)
		if i == 0 {
			c.port, c.apiPort = "0", "0"
		}
		c.port = s.serve(t, c.port, c.tls(true), http.HandlerFunc(c.supervisor))
		c.apiPort = s.serve(t, c.apiPort, c.tls(false), http.HandlerFunc(c.apiServer))
	}
	return c
}

// serve listens on the server's address, and tells the port.
func (s *serverOf) serve(t *testing.T, port string, conf *tls.Config, handler http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(s.address, port))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{
		Handler: handler, TLSConfig: conf, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx }, ReadHeaderTimeout: time.Minute,
		Protocols: new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true)
	before := s.cancel
	s.cancel = func() {
		if before != nil {
			before()
		}
		cancel()
		_ = server.Close()
	}
	s.ended.Go(func() { _ = server.ServeTLS(l, "", "") })
	t.Cleanup(s.kill)
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func (c *cluster) tls(supervisor bool) *tls.Config {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}
	if supervisor {
		serving, err := pki.NewServing(c.pki, nil)
		if err != nil {
			c.t.Fatal(err)
		}
		conf.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return serving.Certificate() }
		return conf
	}
	conf.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.file("serving-kube-apiserver.crt"), c.file("serving-kube-apiserver.key"))
		return &pair, err
	}
	return conf
}

func (c *cluster) file(name string) string { return filepath.Join(c.pki.ServerDir, "tls", name) }

func (c *cluster) url(i int) string {
	return "https://" + net.JoinHostPort(c.servers[i].address, c.port)
}

func (c *cluster) token() token.Secret {
	full, err := token.Format(read(c.t, c.file("server-ca.crt")), token.UserNode, agentPassword)
	if err != nil {
		c.t.Fatal(err)
	}
	return full
}

// set changes what the servers are like.
func (c *cluster) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

func (c *cluster) count(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.signed[what]
}

// who is the node that a request proves to come from: by its certificate, or by the password of agents ("").
func (c *cluster) who(r *http.Request) (node string, ok bool) {
	if len(r.TLS.PeerCertificates) > 0 {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(read(c.t, c.file("client-ca.crt")))
		opts := x509.VerifyOptions{Roots: pool, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		for _, more := range r.TLS.PeerCertificates[1:] {
			opts.Intermediates.AddCert(more)
		}
		if _, err := r.TLS.PeerCertificates[0].Verify(opts); err == nil {
			node = strings.TrimPrefix(r.TLS.PeerCertificates[0].Subject.CommonName, "system:node:")
			return node, !c.unknown[node]
		}
	}
	user, password, _ := r.BasicAuth()
	return "", user == token.UserNode && password == c.password
}

func (c *cluster) supervisor(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.URL.Path == "/cacerts" || r.URL.Path == "/ping" {
		w.Write(read(c.t, c.file("server-ca.crt")))
		return
	}
	node, ok := c.who(r)
	if !ok {
		refuse(w, http.StatusUnauthorized, "not authorized")
		return
	}
	switch path := strings.TrimPrefix(r.URL.Path, "/v1-rke2/"); path {
	case "readyz":
		if c.notReady > 0 {
			c.notReady--
			refuse(w, http.StatusServiceUnavailable, "runtime core not ready")
			return
		}
		io.WriteString(w, "ok")
	case "config":
		fmt.Fprintf(w, `{"SupervisorPort":%s,"ClusterDomain":"cluster.local","ClusterDNS":"10.43.0.10","ClusterIPRange":{"IP":"10.42.0.0","Mask":"//8AAA=="},"ServiceIPRange":{"IP":"10.43.0.0","Mask":"//8AAA=="}}`, c.port)
	case "client-ca.crt", "server-ca.crt":
		w.Write(read(c.t, c.file(path)))
	case "apiservers":
		var all []string
		for _, s := range c.servers {
			all = append(all, net.JoinHostPort(s.address, c.apiPort))
		}
		json.NewEncoder(w).Encode(all)
	case "connect":
		c.mu.Unlock()
		c.tunnels.ServeNode(w, r, node)
		c.mu.Lock()
	default:
		c.sign(w, r, strings.TrimSuffix(path, ".crt"))
	}
}

// sign issues certificates as the specification has them (4.2), with the cluster's real authorities.
func (c *cluster) sign(w http.ResponseWriter, r *http.Request, kind string) {
	body, _ := io.ReadAll(r.Body)
	request, err := x509.ParseCertificateRequest(body)
	if r.Method != http.MethodPost || err != nil {
		refuse(w, http.StatusNotFound, "not found")
		return
	}
	name, password := r.Header.Get("rke2-Node-Name"), r.Header.Get("rke2-Node-Password")
	if strings.HasSuffix(kind, "kubelet") {
		if known := c.passwords[name]; name == "" || password == "" || known != "" && known != password {
			refuse(w, http.StatusForbidden, "node password does not match")
			return
		}
		c.passwords[name] = password
	}
	c.signed[kind]++
	ca, usage := "client-ca", x509.ExtKeyUsageClientAuth
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(c.life), KeyUsage: x509.KeyUsageDigitalSignature}
	switch kind {
	case "serving-kubelet":
		ca, usage = "server-ca", x509.ExtKeyUsageServerAuth
		template.Subject = pkix.Name{CommonName: name}
		template.DNSNames = []string{name, "localhost"}
		for _, ip := range strings.Split(r.Header.Get("rke2-Node-IP"), ",") {
			template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
		}
	case "client-kubelet":
		template.Subject = pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}
	case "client-kube-proxy":
		template.Subject = pkix.Name{CommonName: "system:kube-proxy"}
	case "client-rke2-controller":
		template.Subject = pkix.Name{CommonName: "system:rke2-controller"}
	default:
		refuse(w, http.StatusNotFound, "not found")
		return
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{usage}
	bundle := read(c.t, c.file(ca+".crt"))
	parents, err := cert.ParseCertsPEM(bundle)
	if err != nil {
		c.t.Error(err)
		return
	}
	key, err := keyutil.ParsePrivateKeyPEM(read(c.t, c.file(ca+".key")))
	if err != nil {
		c.t.Error(err)
		return
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parents[0], request.PublicKey, key)
	if err != nil {
		c.t.Error(err)
		return
	}
	pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	w.Write(bundle)
}

func refuse(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":%q,"code":%d}`, message, code)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return content
}
