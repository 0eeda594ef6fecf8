package command

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"keelson/node/token"
)

// tokenMachine is a machine with a supervisor and a kube-apiserver, as far as `node token` asks them.
type tokenMachine struct {
	dir, kubeconfig, url string
	ca                   []byte

	mu       sync.Mutex // guards what follows
	password string
	refuse   string // what the supervisor says in place of rotating
	finished int
	encrypt  http.HandlerFunc // takes what is below /v1-rke2/encrypt
	snapshot http.Handler     // takes /db/snapshot
	secrets  map[string]*corev1.Secret
}

func newTokenMachine(t *testing.T) *tokenMachine {
	t.Helper()
	m := &tokenMachine{dir: t.TempDir(), password: "old", secrets: map[string]*corev1.Secret{}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "rke2-server-ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	m.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	s := httptest.NewUnstartedServer(m)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	m.url = s.URL
	m.kubeconfig = filepath.Join(m.dir, "server", "cred", "admin.kubeconfig")
	full, err := token.Format(m.ca, "server", "old")
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "a",
		"clusters": []any{map[string]any{"name": "a", "cluster": map[string]any{"server": m.url, "certificate-authority-data": m.ca}}},
		"contexts": []any{map[string]any{"name": "a", "context": map[string]any{"cluster": "a", "user": "a"}}},
		"users":    []any{map[string]any{"name": "a", "user": map[string]any{"token": "admin"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{m.kubeconfig: config, filepath.Join(m.dir, "server", "token"): []byte(full.Reveal() + "\n")} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m *tokenMachine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	status := func(code int, message string, reason string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code})
	}
	const secrets = "/api/v1/namespaces/kube-system/secrets"
	_, password, _ := r.BasicAuth()
	name := strings.TrimPrefix(r.URL.Path, secrets+"/")
	switch {
	case r.URL.Path == "/cacerts":
		_, _ = w.Write(m.ca)
	case (strings.HasPrefix(r.URL.Path, "/v1-rke2/") || strings.HasPrefix(r.URL.Path, "/db/")) && password != m.password:
		status(401, "not authorized", "Unauthorized")
	case r.URL.Path == "/v1-rke2/readyz":
		status(403, "forbidden", "Forbidden") // servers are none of its groups
	case strings.HasPrefix(r.URL.Path, "/v1-rke2/encrypt/") && m.encrypt != nil:
		m.encrypt(w, r)
	case r.URL.Path == "/db/snapshot" && m.snapshot != nil:
		m.snapshot.ServeHTTP(w, r)
	case r.URL.Path == "/v1-rke2/token" && m.refuse != "":
		status(400, m.refuse, "BadRequest")
	case r.URL.Path == "/v1-rke2/token" && r.Method == http.MethodPut:
		var body struct{ NewToken string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			status(400, err.Error(), "BadRequest")
			return
		}
		m.password = body.NewToken
	case r.URL.Path == "/v1-rke2/token" && r.Method == http.MethodDelete:
		m.finished++
	case r.Header.Get("Authorization") != "Bearer admin":
		status(401, "Unauthorized", "Unauthorized")
	case r.URL.Path == secrets && r.Method == http.MethodPost:
		body, _ := io.ReadAll(r.Body)
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil) // JSON or protobuf
		s, ok := object.(*corev1.Secret)
		if err != nil || !ok {
			status(400, "no secret", "BadRequest")
			return
		}
		if m.secrets[s.Name] != nil {
			status(409, "exists", "AlreadyExists")
			return
		}
		s.APIVersion, s.Kind = "v1", "Secret"
		m.secrets[s.Name] = s
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s)
	case r.URL.Path == secrets && r.URL.Query().Get("fieldSelector") == "type=bootstrap.kubernetes.io/token":
		items := []any{}
		for _, s := range m.secrets {
			items = append(items, s)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": "SecretList", "apiVersion": "v1", "items": items})
	case r.Method == http.MethodDelete && m.secrets[name] != nil:
		delete(m.secrets, name)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Success"}`))
	default:
		status(404, "not found", "NotFound")
	}
}

func (m *tokenMachine) run(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, problems bytes.Buffer
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	err = tokenVerb(t.Context(), append(args, "--data-dir", m.dir), at, &out, &problems)
	return out.String(), problems.String(), err
}

func TestTokenCreateListDelete(t *testing.T) {
	m := newTokenMachine(t)
	hash, err := token.CAHash(m.ca)
	if err != nil {
		t.Fatal(err)
	}
	kube := []string{"--kubeconfig", m.kubeconfig}
	run := func(args ...string) (string, error) {
		t.Helper()
		out, _, err := m.run(t, append(args, kube...)...)
		return out, err
	}
	out, err := run("create", "abcdef.0123456789abcdef", "--ttl", "1h", "--description", "for the rack")
	if err != nil || out != "K10"+hash+"::abcdef.0123456789abcdef\n" {
		t.Fatalf("create: got %q, %v", out, err)
	}
	if _, err := run("create", "abcdef.fedcba9876543210"); err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("the same id: got %v", err)
	}
	out, err = run("create", "--ttl=0", "--usages", "authentication", "--groups", "system:bootstrappers:a,system:bootstrappers:b")
	parsed, parseErr := token.Parse(token.Secret(strings.TrimSpace(out)))
	if err != nil || parseErr != nil || parsed.CAHash != hash || len(parsed.BootstrapID) != 6 {
		t.Fatalf("generated: got %q, %v, %v", out, err, parseErr)
	}
	out, err = run("list")
	for _, want := range []string{"abcdef", "1h", "2030-01-02T04:04:05Z", "for the rack", "system:bootstrappers:rke2:default-node-token", parsed.BootstrapID, "<forever>", "system:bootstrappers:a,system:bootstrappers:b"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("list: %v; want %q in %s", err, want, out)
		}
	}
	if strings.Contains(out, "0123456789abcdef") || strings.Contains(out, parsed.BootstrapSecret.Reveal()) {
		t.Error("list shows secrets")
	}
	out, err = run("list", "-o", "json")
	var all []map[string]any
	if jsonErr := json.Unmarshal([]byte(out), &all); err != nil || jsonErr != nil || len(all) != 2 {
		t.Errorf("json: %s, %v, %v", out, err, jsonErr)
	}
	if out, err = run("delete", "abcdef", parsed.BootstrapID+"."+parsed.BootstrapSecret.Reveal()); err != nil || strings.Count(out, "deleted\n") != 2 || strings.Contains(out, parsed.BootstrapSecret.Reveal()) {
		t.Errorf("delete: got %q, %v", out, err)
	}
	if _, err := run("delete", "abcdef"); err == nil || !strings.Contains(err.Error(), "there is none") {
		t.Errorf("again: got %v", err)
	}
	if len(m.secrets) != 0 {
		t.Errorf("left: %v", m.secrets)
	}
}

func TestTokenGenerate(t *testing.T) {
	m := newTokenMachine(t)
	out, _, err := m.run(t, "generate")
	if _, _, parseErr := token.ParseBootstrap(token.Secret(strings.TrimSuffix(out, "\n"))); err != nil || parseErr != nil {
		t.Errorf("got %q, %v, %v", out, err, parseErr)
	}
	if len(m.secrets) != 0 {
		t.Error("a token was made")
	}
}

func TestTokenRotate(t *testing.T) {
	m := newTokenMachine(t)
	hash, err := token.CAHash(m.ca)
	if err != nil {
		t.Fatal(err)
	}
	out, notes, err := m.run(t, "rotate", "--server", m.url, "--new-token", "next")
	if err != nil || out != "K10"+hash+"::server:next\n" || m.password != "next" {
		t.Fatalf("got %q, %v; the server has %q", out, err, m.password)
	}
	if !strings.Contains(notes, "No machine needs a restart") || strings.Contains(notes, "::server:") {
		t.Errorf("notes: %s", notes)
	}
	// The file still has the old one: the fake does not write it.
	if _, _, err = m.run(t, "rotate", "--server", m.url); err == nil || !strings.Contains(err.Error(), "does not take the token") {
		t.Errorf("with the token before: got %v", err)
	}
	if out, _, err = m.run(t, "rotate", "-s", m.url, "-t", "K10"+hash+"::server:next"); err != nil || out != "K10"+hash+"::server:"+m.password+"\n" || len(m.password) != 32 {
		t.Errorf("generated: got %q, %v", out, err)
	}
	// A short token needs the authority at hand.
	if _, _, err = m.run(t, "rotate", "-s", m.url, "-t", m.password); err == nil || !strings.Contains(err.Error(), "begins with K10") {
		t.Errorf("short: got %v", err)
	}
	if err := os.Mkdir(filepath.Join(m.dir, "server", "tls"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.dir, "server", "tls", "server-ca.crt"), m.ca, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err = m.run(t, "rotate", "-s", m.url, "-t", m.password, "--new-token", "third"); err != nil || m.password != "third" {
		t.Errorf("short, with the authority: %v", err)
	}
	m.refuse = "another rotation of the token is under way"
	if _, _, err = m.run(t, "rotate", "-s", m.url, "-t", "third"); err == nil || !strings.Contains(err.Error(), m.refuse) {
		t.Errorf("refused: got %v", err)
	}
}

func TestTokenFinish(t *testing.T) {
	m := newTokenMachine(t)
	out, notes, err := m.run(t, "rotate", "--finish", "--server", m.url)
	if err != nil || out != "" || m.finished != 1 || m.password != "old" {
		t.Fatalf("got %q, %v, finished %d times; the server has %q", out, err, m.finished, m.password)
	}
	if !strings.Contains(notes, "honoured no more") || strings.Contains(notes, "old\n") {
		t.Errorf("notes: %s", notes)
	}
	m.refuse = "not every server has taken the new token over: cp-3"
	if _, _, err = m.run(t, "rotate", "--finish", "-s", m.url); err == nil || !strings.Contains(err.Error(), m.refuse) {
		t.Errorf("refused: got %v", err)
	}
	if _, _, err = m.run(t, "rotate", "--finish", "--new-token", "x", "-s", m.url); err == nil || !strings.Contains(err.Error(), "leave --new-token out") {
		t.Errorf("with a new token: got %v", err)
	}
}

func TestTokenMistakes(t *testing.T) {
	m := newTokenMachine(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "usage: node token"},
		{[]string{"dance"}, `unknown verb "dance"`},
		{[]string{"create", "--ttl", "-1h"}, "is over already"},
		{[]string{"create", "--ttl", "soon"}, "ttl"},
		{[]string{"create", "hush"}, "6 characters"},
		{[]string{"create", "a", "b"}, `"b" is one too many`},
		{[]string{"create", "--groups", "system:masters"}, `group "system:masters"`},
		{[]string{"create", "--usages", "all"}, `usage "all"`},
		{[]string{"create", "--kubeconfig", "/no/such/file"}, "/no/such/file"},
		{[]string{"list", "-o", "xml"}, `"xml"`},
		{[]string{"list", "x"}, "one too many"},
		{[]string{"delete"}, "give the id"},
		{[]string{"delete", "hush-hush"}, "neither the id"},
		{[]string{"generate", "x"}, "one too many"},
		{[]string{"rotate", "--new-token", "abcdef.0123456789abcdef"}, "form of a bootstrap token"},
		{[]string{"rotate", "--new-token", "K10hush"}, "begins with K10"},
		{[]string{"rotate", "--server", "127.0.0.1:9345"}, "https://host:9345"},
		{[]string{"rotate", "--data-dir", "/no/such"}, "/no/such"},
		{[]string{"rotate", "--colour"}, "colour"},
	} {
		var out, problems bytes.Buffer
		args := c.args
		if len(args) > 0 && args[0] == "create" && !strings.Contains(strings.Join(args, " "), "--kubeconfig") {
			args = append(args, "--kubeconfig", m.kubeconfig)
		}
		if len(args) > 0 && args[0] == "rotate" && !strings.Contains(strings.Join(args, " "), "--data-dir") {
			args = append(args, "--data-dir", m.dir)
		}
		err := tokenVerb(context.Background(), args, time.Now(), &out, &problems)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "0123456789abcdef") {
			t.Errorf("%v: got %v, want %q in it", c.args, err, c.want)
		}
		if out.Len() > 0 {
			t.Errorf("%v: printed %q", c.args, out.String())
		}
	}
	if len(m.secrets) != 0 || m.password != "old" {
		t.Error("a mistake has changed something")
	}
}
