package supervisorapi

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/node/nodepassword"
	"keelson/node/signing"
	"keelson/node/token"
)

// everything sets every handler. Hooks tell what they were called with by what they answer.
func (b *bench) everything(t testing.TB) Handlers {
	static := filepath.Join(b.dir, "static")
	if err := os.MkdirAll(filepath.Join(static, "charts"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"static/charts/a.tgz": "chart", "secret": "x"} {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_ = os.Symlink(filepath.Join(b.dir, "secret"), filepath.Join(static, "link"))
	h := b.handlers(t)
	h.Static = static
	h.Config = func(context.Context) ([]byte, error) { return []byte(`{"ClusterDomain":"cluster.local"}`), nil }
	h.Members = func(context.Context) (any, error) { return []string{}, nil }
	h.Metrics = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "metrics "+r.URL.Path) })
	h.Profiles = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "profile "+r.URL.Path) })
	h.Registry = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "image of "+r.URL.Path) })
	h.Cluster = func(context.Context) (any, error) { return map[string]any{"clusterID": "c1"}, nil }
	h.BootstrapToken = func(_ context.Context, id string, secret token.Secret) (string, []string, error) {
		switch {
		case id == "absent":
			return "", nil, errors.New("kube-apiserver does not answer")
		case secret != "0123456789abcdef":
			return "", nil, ErrCredentials
		case id == "ended0":
			return "", nil, fmt.Errorf("%w: %w", ErrCredentials, &Refusal{Code: 401, Message: "the bootstrap token ended0 expired at noon"})
		}
		return "system:bootstrap:" + id, []string{"system:bootstrappers", "system:masters", "system:nodes", token.RoleServer}, nil
	}
	h.NodePassword = func(_ context.Context, node string, password token.Secret, _ bool) error {
		switch {
		case node == "gone":
			return fmt.Errorf("node %s: %w", node, nodepassword.ErrNoNode)
		case node == "early":
			return nodepassword.ErrNotReady
		case node == "broken":
			return errors.New("a detail that strangers must not see")
		case password != "node-password":
			return fmt.Errorf("node %s: %w", node, nodepassword.ErrRejected)
		}
		return nil
	}
	h.Sign = signing.Signer{ServerDir: filepath.Join(b.dir, "server")}.Sign
	h.Connect = func(w http.ResponseWriter, _ *http.Request, node string) { io.WriteString(w, "tunnel of "+node) }
	h.Egress = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "to "+r.Host) })
	h.Snapshot = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "snapshot") })
	h.RotateToken = func(context.Context, token.Secret) error { return nil }
	h.FinishRotation = func(_ context.Context, shown token.Secret) error {
		if shown != serverPassword {
			return errors.New("it is not told who asks")
		}
		return &Refusal{Code: 400, Message: "cp-3 lags behind"}
	}
	h.RotateCA = func(_ context.Context, _ []byte, force bool) error {
		if !force {
			return &Refusal{http.StatusBadRequest, "not an heir"}
		}
		return nil
	}
	h.EncryptStatus = func(context.Context) (any, error) { return map[string]string{"stage": "start"}, nil }
	h.EncryptConfig = func(context.Context, []byte) error { return &Refusal{http.StatusBadRequest, "no such stage"} }
	return h
}

func signingRequest(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestEveryEndpoint is spec 3.1 row by row: who, how, with what, and the code.
func TestEveryEndpoint(t *testing.T) {
	b := start(t, unlimited())
	if err := b.Install(b.everything(t)); err != nil {
		t.Fatal(err)
	}
	nobody, server, agent := credential{}, credential{user: "server", password: serverPassword}, credential{user: "node", password: agentPassword}
	kubelet, admin := credential{cert: "agent/client-kubelet"}, credential{cert: "server/tls/client-admin"}
	boot, controller := credential{bearer: "abcdef.0123456789abcdef"}, credential{cert: "agent/client-rke2-controller"}
	csr := string(signingRequest(t))
	me := "rke2-Node-Name: n\nrke2-Node-Password: node-password\n"
	for _, c := range []struct {
		name         string
		who          credential
		method, path string
		header, body string
		code         int
		want         string
	}{
		{"static", nobody, "GET", "/static/charts/a.tgz", "", "", 200, "chart"},
		{"static folder", nobody, "GET", "/static/charts", "", "", 404, ""},
		{"static link to outside", nobody, "GET", "/static/link", "", "", 404, ""},
		{"static dots", nobody, "GET", "/static/../secret", "", "", 404, ""},
		{"static write", nobody, "PUT", "/static/charts/a.tgz", "", "", 405, ""},
		{"client CA", agent, "GET", "/v1-rke2/client-ca.crt", "", "", 200, string(b.read(t, "server/tls/client-ca.crt"))},
		{"client CA, nobody", nobody, "GET", "/v1-rke2/client-ca.crt", "", "", 403, ""},
		{"server CA", boot, "GET", "/v1-rke2/server-ca.crt", "", "", 200, string(b.read(t, "server/tls/server-ca.crt"))},
		{"config, agent", agent, "GET", "/v1-rke2/config", "", "", 200, "ClusterDomain"},
		{"config, server", server, "GET", "/v1-rke2/config", "", "", 200, "ClusterDomain"},

		{"serving", agent, "POST", "/v1-rke2/serving-kubelet.crt", me + "rke2-Node-IP: 10.0.0.7, fd00::7", csr, 200, "BEGIN CERTIFICATE"},
		{"kubelet by token", agent, "POST", "/v1-rke2/client-kubelet.crt", me, csr, 200, "BEGIN CERTIFICATE"},
		{"kubelet by bootstrap token", boot, "POST", "/v1-rke2/client-kubelet.crt", me, csr, 200, "BEGIN CERTIFICATE"},
		{"kubelet by certificate", kubelet, "POST", "/v1-rke2/client-kubelet.crt", me, csr, 200, "BEGIN CERTIFICATE"},
		{"kubelet, another's certificate", kubelet, "POST", "/v1-rke2/client-kubelet.crt", "rke2-Node-Name: other\nrke2-Node-Password: node-password", csr, 400, "another node"},
		{"kubelet, server's token alone", server, "POST", "/v1-rke2/client-kubelet.crt", me, csr, 403, ""},
		{"kubelet, no name", agent, "POST", "/v1-rke2/client-kubelet.crt", "rke2-Node-Password: node-password", csr, 400, "headers"},
		{"kubelet, no password", agent, "POST", "/v1-rke2/client-kubelet.crt", "rke2-Node-Name: n", csr, 400, "headers"},
		{"kubelet, wrong password", agent, "POST", "/v1-rke2/client-kubelet.crt", "rke2-Node-Name: n\nrke2-Node-Password: x", csr, 403, "does not fit"},
		{"kubelet, Node deleted", agent, "POST", "/v1-rke2/client-kubelet.crt", "rke2-Node-Name: gone\nrke2-Node-Password: x", csr, 401, "does not exist"},
		{"kubelet, no API yet", agent, "POST", "/v1-rke2/client-kubelet.crt", "rke2-Node-Name: early\nrke2-Node-Password: x", csr, 503, "kube-apiserver"},
		{"kubelet, check fails", agent, "POST", "/v1-rke2/client-kubelet.crt", "rke2-Node-Name: broken\nrke2-Node-Password: x", csr, 500, "error ID"},
		{"kubelet, no node name", agent, "POST", "/v1-rke2/client-kubelet.crt", "rke2-Node-Name: N,O=system:masters\nrke2-Node-Password: x", csr, 400, "DNS name"},
		{"serving, kube-apiserver's name", agent, "POST", "/v1-rke2/serving-kubelet.crt", "rke2-Node-Name: kubernetes.default.svc\nrke2-Node-Password: node-password", csr, 400, "every cluster"},
		{"serving, no address", agent, "POST", "/v1-rke2/serving-kubelet.crt", me + "rke2-Node-IP: x", csr, 500, "rke2-Node-IP"},
		{"kubelet, legacy form", agent, "GET", "/v1-rke2/client-kubelet.crt", me, "", 405, ""},
		{"kubelet, no request", agent, "POST", "/v1-rke2/client-kubelet.crt", me, "", 400, "signing request"},
		{"kube-proxy", agent, "POST", "/v1-rke2/client-kube-proxy.crt", "", csr, 200, "BEGIN CERTIFICATE"},
		{"controller", agent, "POST", "/v1-rke2/client-rke2-controller.crt", "", csr, 200, "BEGIN CERTIFICATE"},
		{"controller, nobody", nobody, "POST", "/v1-rke2/client-rke2-controller.crt", "", csr, 403, ""},

		{"bootstrap token is no server", boot, "GET", "/v1-rke2/server-bootstrap", "", "", 403, ""},
		{"bootstrap token, wrong", credential{bearer: "abcdef.0123456789abcdeX"}, "GET", "/v1-rke2/readyz", "", "", 401, ""},
		{"bootstrap token, expired", credential{bearer: "ended0.0123456789abcdef"}, "GET", "/v1-rke2/readyz", "", "", 401, "ended0 expired at noon"},
		{"bootstrap token, expired, wrong secret", credential{bearer: "ended0.0123456789abcdeX"}, "GET", "/v1-rke2/readyz", "", "", 401, "not authorized"},
		{"bootstrap token, unknown", credential{bearer: "abcdef.0000000000000000"}, "GET", "/v1-rke2/readyz", "", "", 401, ""},
		{"bootstrap token, nobody can tell", credential{bearer: "absent.0123456789abcdef"}, "GET", "/v1-rke2/readyz", "", "", 503, ""},

		{"tunnel", kubelet, "GET", "/v1-rke2/connect", "", "", 200, "tunnel of n"},
		{"tunnel by token", agent, "GET", "/v1-rke2/connect", "", "", 403, ""},
		{"tunnel by bootstrap token", boot, "GET", "/v1-rke2/connect", "", "", 403, ""},
		{"tunnel of an admin", admin, "GET", "/v1-rke2/connect", "", "", 403, ""},

		{"metrics say who may", nobody, "GET", "/metrics", "", "", 200, "metrics /metrics"},
		{"metrics are read", admin, "POST", "/metrics", "", "", 405, ""},
		{"profiles say who may", nobody, "GET", "/debug/pprof/heap", "", "", 200, "profile /debug/pprof/heap"},
		{"members, this machine", nobody, "GET", "/db/info", "", "", 200, `{"keelson":{"clusterID":"c1"},"members":[]}`},
		{"members, write", server, "POST", "/db/info", "", "", 405, ""},
		{"snapshot", server, "POST", "/db/snapshot", "", "{}", 200, "snapshot"},
		{"snapshot, agent", agent, "POST", "/db/snapshot", "", "{}", 403, ""},
		{"snapshot, read", server, "GET", "/db/snapshot", "", "", 405, ""},
		{"token", server, "PUT", "/v1-rke2/token", "", `{"newToken":"next"}`, 200, ""},
		{"token, server makes it", server, "PUT", "/v1-rke2/token", "", `{"newToken":""}`, 200, ""},
		{"token, bad body", server, "PUT", "/v1-rke2/token", "", `{}`, 400, "newToken"},
		{"token like a bootstrap token", server, "PUT", "/v1-rke2/token", "", `{"newToken":"abcdef.0123456789abcdef"}`, 400, "bootstrap"},
		{"token, agent", agent, "PUT", "/v1-rke2/token", "", `{"newToken":"next"}`, 403, ""},
		{"end of a rotation", server, "DELETE", "/v1-rke2/token", "", "", 400, "cp-3 lags behind"},
		{"end of a rotation, agent", agent, "DELETE", "/v1-rke2/token", "", "", 403, ""},
		{"end of a rotation, nobody", nobody, "DELETE", "/v1-rke2/token", "", "", 403, ""},
		{"token, read", server, "GET", "/v1-rke2/token", "", "", 405, ""},
		{"authorities", server, "PUT", "/v1-rke2/cert/cacerts?force=true", "", strings.Repeat(" ", 100<<10), 204, ""},
		{"authorities, refused", server, "PUT", "/v1-rke2/cert/cacerts", "", "{}", 400, "not an heir"},
		{"authorities, bad force", server, "PUT", "/v1-rke2/cert/cacerts?force=perhaps", "", "{}", 400, "force"},
		{"authorities, agent", agent, "PUT", "/v1-rke2/cert/cacerts", "", "{}", 403, ""},
		{"encryption", server, "GET", "/v1-rke2/encrypt/status", "", "", 200, `{"stage":"start"}`},
		{"encryption, agent", agent, "GET", "/v1-rke2/encrypt/status", "", "", 403, ""},
		{"change encryption", server, "PUT", "/v1-rke2/encrypt/config", "", "{}", 400, "no such stage"},
		{"change encryption, no JSON", server, "PUT", "/v1-rke2/encrypt/config", "", "{", 400, "JSON"},
		{"change encryption, read", server, "GET", "/v1-rke2/encrypt/config", "", "", 405, ""},

		{"image", kubelet, "GET", "/v2/library/busybox/manifests/1.36", "", "", 200, "image of /v2/library/busybox/manifests/1.36"},
		{"image, by the node's containerd", controller, "HEAD", "/v2/library/busybox/manifests/1.36", "", "", 200, ""},
		{"is there a registry", controller, "GET", "/v2", "", "", 200, "image of /v2"},
		{"image, nobody", nobody, "GET", "/v2/library/busybox/manifests/1.36", "", "", 403, ""},
		{"image by token", agent, "GET", "/v2/library/busybox/manifests/1.36", "", "", 403, ""},
		{"image by the server's token", server, "GET", "/v2/library/busybox/manifests/1.36", "", "", 403, ""},
		{"image by bootstrap token", boot, "GET", "/v2/library/busybox/manifests/1.36", "", "", 403, ""},
		{"image, an admin", admin, "GET", "/v2/library/busybox/manifests/1.36", "", "", 403, ""},
		{"image, push", kubelet, "PUT", "/v2/library/busybox/manifests/1.36", "", "", 405, ""},
		{"peers of RKE2", kubelet, "GET", "/v1-rke2/p2p", "", "", 200, "[]"},
		{"peers of RKE2, by its controller", controller, "GET", "/v1-rke2/p2p", "", "", 200, "[]"},
		{"peers of RKE2, by token", agent, "GET", "/v1-rke2/p2p", "", "", 200, "[]"},
		{"peers of RKE2, nobody", nobody, "GET", "/v1-rke2/p2p", "", "", 403, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequest(c.method, b.url+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.SplitSeq(strings.TrimSpace(c.header), "\n") {
				if name, value, ok := strings.Cut(line, ": "); ok {
					req.Header.Set(name, value)
				}
			}
			res, body := b.send(t, c.who, req)
			if res.StatusCode != c.code || !strings.Contains(body, c.want) {
				t.Errorf("got %d %q, want %d %q", res.StatusCode, body, c.code, c.want)
			}
			if c.code >= 400 && (!strings.Contains(body, `"kind":"Status"`) || !strings.Contains(body, fmt.Sprintf(`"code":%d`, c.code))) {
				t.Errorf("error is %q", body)
			}
		})
	}
	if log := b.log.String(); strings.Contains(log, "node-password\"") || strings.Contains(log, "0123456789abcdef") {
		t.Error("a secret is in the log")
	}
}

// TestEgress: CONNECT has no path, and is for kube-apiserver alone.
func TestEgress(t *testing.T) {
	b := start(t, unlimited())
	if err := b.Install(b.everything(t)); err != nil {
		t.Fatal(err)
	}
	for cert, want := range map[string]string{"": "403", "agent/client-kubelet": "403", "server/tls/client-scheduler": "403", "server/tls/client-kube-apiserver": "200"} {
		conf := &tls.Config{InsecureSkipVerify: true}
		if cert != "" {
			pair, err := tls.LoadX509KeyPair(filepath.Join(b.dir, cert+".crt"), filepath.Join(b.dir, cert+".key"))
			if err != nil {
				t.Fatal(err)
			}
			conf.Certificates = []tls.Certificate{pair}
		}
		conn, err := tls.Dial("tcp", strings.TrimPrefix(b.url, "https://"), conf)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "CONNECT 10.0.0.9:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.Contains(line, want) {
			t.Errorf("%q: got %q, %v, want %s", cert, line, err, want)
		}
		conn.Close()
	}
}

func TestWithoutManagedEtcd(t *testing.T) {
	b := start(t, unlimited())
	h := b.everything(t)
	h.NoEtcd, h.EncryptStatus, h.NodePassword = true, nil, nil
	if err := b.Install(h); err != nil {
		t.Fatal(err)
	}
	server := credential{user: "server", password: serverPassword}
	for path, want := range map[string]string{"/db/info": "400 etcd datastore disabled", "/db/snapshot": "400 etcd datastore disabled", "/v1-rke2/server-bootstrap": "400 etcd disabled", "/v1-rke2/encrypt/status": "503 runtime core not ready"} {
		res, body := b.do(t, server, "GET", path, nil)
		code, text, _ := strings.Cut(want, " ")
		if fmt.Sprint(res.StatusCode) != code || !strings.Contains(body, text) {
			t.Errorf("%s: got %d %s, want %s", path, res.StatusCode, body, want)
		}
	}
}

func TestWithoutKubeAPIServer(t *testing.T) {
	b := start(t, unlimited())
	h := b.everything(t)
	h.NoAPI, h.Registry = true, nil
	if err := b.Install(h); err != nil {
		t.Fatal(err)
	}
	agent := credential{user: "node", password: agentPassword}
	for path, want := range map[string]int{"/api/v1/nodes": 503, "/v1-rke2/p2p": 503, "/v1-rke2/client-ca.crt": 200, "/cacerts": 200} {
		if res, body := b.do(t, agent, "GET", path, nil); res.StatusCode != want || want == 503 && !strings.Contains(body, "apiserver disabled") {
			t.Errorf("%s: got %d %s, want %d", path, res.StatusCode, body, want)
		}
	}
	if res, _ := b.do(t, credential{}, "GET", "/api/v1/nodes", nil); res.StatusCode != 403 {
		t.Errorf("a stranger: got %d, want 403", res.StatusCode)
	}
}

// TestTwoPasswordsAtOnce is a rotation: a connection that is open outlives it, and both passwords hold meanwhile.
func TestTwoPasswordsAtOnce(t *testing.T) {
	b := start(t, unlimited())
	h := b.handlers(t)
	if err := b.Install(h); err != nil {
		t.Fatal(err)
	}
	client := b.client(t, credential{})
	get := func(password string) int {
		req, _ := http.NewRequest("GET", b.url+"/v1-rke2/server-bootstrap", nil)
		req.SetBasicAuth("server", password)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	before := get(serverPassword)
	h.Users = append(h.Users, token.User{Name: token.UserServer, Password: "next", Roles: []string{token.RoleServer}})
	if err := b.Install(h); err != nil {
		t.Fatal(err)
	}
	old, next := get(serverPassword), get("next")
	h.Users = h.Users[len(h.Users)-1:]
	if err := b.Install(h); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(before, old, next, get("next"), get(serverPassword)); got != "200 200 200 200 401" {
		t.Errorf("got %s", got)
	}
}

// TestAnotherClientCA: certificates of the authority before are refused as soon as the bundle lacks it.
func TestAnotherClientCA(t *testing.T) {
	b, other := start(t, unlimited()), start(t, unlimited())
	h := b.handlers(t)
	kubelet := credential{cert: "agent/client-kubelet"}
	for _, c := range []struct {
		ca   []byte
		want int
	}{
		{nil, 200},
		{append(other.read(t, "server/tls/client-ca.crt"), b.read(t, "server/tls/client-ca.crt")...), 200},
		{other.read(t, "server/tls/client-ca.crt"), 401},
	} {
		h.ClientCA = c.ca
		if err := b.Install(h); err != nil {
			t.Fatal(err)
		}
		if res, _ := b.do(t, kubelet, "GET", "/v1-rke2/readyz", nil); res.StatusCode != c.want {
			t.Errorf("got %d, want %d", res.StatusCode, c.want)
		}
	}
}

// TestCertificatesOutliveGuessing: a stranger behind a node's address cannot lock the node out.
func TestCertificatesOutliveGuessing(t *testing.T) {
	limits := unlimited()
	limits.FailuresPerMinute = 1
	b := start(t, limits)
	b.install(t)
	for range 3 {
		b.do(t, credential{user: "node", password: "wrong"}, "GET", "/v1-rke2/readyz", nil)
	}
	if res, _ := b.do(t, credential{cert: "agent/client-kubelet"}, "GET", "/v1-rke2/readyz", nil); res.StatusCode != 200 {
		t.Errorf("got %d", res.StatusCode)
	}
}

// leafOf is the certificate at the head of an answer.
func leafOf(t testing.TB, chain string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(chain))
	if block == nil {
		t.Fatalf("no certificate in %q", chain)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestIssuedForTheNode(t *testing.T) {
	b := start(t, unlimited())
	if err := b.Install(b.everything(t)); err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequest("POST", b.url+"/v1-rke2/serving-kubelet.crt", strings.NewReader(string(signingRequest(t))))
	for name, value := range map[string]string{headerName: "worker", headerPassword: "node-password", headerAddress: "10.0.0.7"} {
		req.Header.Set(name, value)
	}
	_, body := b.send(t, credential{user: "node", password: agentPassword}, req)
	c := leafOf(t, body)
	if err := c.VerifyHostname(netip.MustParseAddr("10.0.0.7").String()); err != nil || c.Subject.CommonName != "worker" {
		t.Errorf("got %v for %v, %v", c.Subject, c.IPAddresses, err)
	}
}
