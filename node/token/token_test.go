package token

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	hash := strings.Repeat("0a", 32)
	for _, c := range []struct {
		name, text string
		want       Token
		err        error
	}{
		{"full", "K10" + hash + "::server:pass", Token{CAHash: hash, User: "server", Password: "pass"}, nil},
		{"colons in the password", "K10" + hash + "::node:a:b::c", Token{CAHash: hash, User: "node", Password: "a:b::c"}, nil},
		{"without a hash", "K10::server:pass", Token{User: "server", Password: "pass"}, nil},
		{"without a user", "K10:::pass", Token{Password: "pass"}, nil},
		{"no double colon", "K10server:pass", Token{User: "server", Password: "pass"}, nil},
		{"bootstrap", "K10" + hash + "::abcdef.0123456789abcdef", Token{CAHash: hash, BootstrapID: "abcdef", BootstrapSecret: "0123456789abcdef"}, nil},
		{"bare bootstrap", "abcdef.0123456789abcdef", Token{BootstrapID: "abcdef", BootstrapSecret: "0123456789abcdef"}, nil},
		{"nearly bootstrap", "abcdef.0123456789abcdeF", Token{Password: "abcdef.0123456789abcdeF"}, nil},
		{"bare", "hello:world::x", Token{Password: "hello:world::x"}, nil},
		{"empty", "", Token{}, ErrEmpty},
		{"short hash", "K10abc::server:pass", Token{}, ErrHashLength},
		{"no password", "K10" + hash + "::server:", Token{}, ErrFormat},
		{"no colon", "K10" + hash + "::server", Token{}, ErrFormat},
		{"bare that begins like a full one", "K10password", Token{}, ErrFormat},
		{"only the marker", "K10", Token{}, ErrFormat},
	} {
		got, err := Parse(Secret(c.text))
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: got %#v, %v; want %#v, %v", c.name, got, err, c.want, c.err)
		}
	}
}

func TestServerPassword(t *testing.T) {
	hash := strings.Repeat("0a", 32)
	for _, c := range []struct {
		text, want string
		err        error
	}{
		{"pass", "pass", nil},
		{"K10" + hash + "::server:pass", "pass", nil},
		{"abcdef.0123456789abcdef", "", ErrBootstrap},
		{"K10" + hash + "::abcdef.0123456789abcdef", "", ErrBootstrap},
		{"K10" + hash + "::server:abcdef.0123456789abcdef", "", ErrBootstrap},
		{"", "", ErrEmpty},
	} {
		got, err := ServerPassword(Secret(c.text))
		if got.Reveal() != c.want || !errors.Is(err, c.err) {
			t.Errorf("%q: got %q, %v; want %q, %v", c.text, got.Reveal(), err, c.want, c.err)
		}
	}
}

func TestGenerate(t *testing.T) {
	a, b := Generate(), Generate()
	if len(a) != 32 || a == b {
		t.Errorf("got %q and %q", a.Reveal(), b.Reveal())
	}
	if p, err := ServerPassword(a); err != nil || p != a {
		t.Errorf("a generated token does not parse as itself: %v", err)
	}
}

// issue makes a CA certificate, self-signed where parent is nil.
func issue(t *testing.T, name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	if parent == nil {
		parent, parentKey = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestCAHash(t *testing.T) {
	sum := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	root, rootKey, rootPEM := issue(t, "root", nil, nil)
	_, _, otherPEM := issue(t, "other", nil, nil)
	_, _, interPEM := issue(t, "intermediate", root, rootKey)
	_, _, inter2PEM := issue(t, "intermediate two", root, rootKey)
	for _, c := range []struct {
		name   string
		bundle []byte
		want   string
	}{
		{"one certificate: the file", rootPEM, sum(rootPEM)},
		{"chain: the root's DER", slices.Concat(interPEM, rootPEM), sum(root.Raw)},
		{"another issuer under the root: the same", slices.Concat(inter2PEM, rootPEM), sum(root.Raw)},
		{"no chain: the file", slices.Concat(interPEM, otherPEM), sum(slices.Concat(interPEM, otherPEM))},
	} {
		got, err := CAHash(c.bundle)
		if err != nil || got != c.want {
			t.Errorf("%s: got %s, %v; want %s", c.name, got, err, c.want)
		}
	}
	for name, bad := range map[string][]byte{"empty": nil, "no PEM": []byte("hello"), "no certificate": []byte("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n")} {
		if _, err := CAHash(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	full, err := Format(rootPEM, UserServer, "pass")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Parse(full); err != nil || got != (Token{CAHash: sum(rootPEM), User: "server", Password: "pass"}) {
		t.Errorf("Format then Parse: %#v, %v", got, err)
	}
}

// TestHashVector is a hash made by Go's x/crypto and Python's hashlib alike.
func TestHashVector(t *testing.T) {
	const want = "$1:0011223344556677:15:8:1:uTWS0mfqYvStMLg3+qlKPdFtu55wo/CJXLW2HuzH6ShTOZPky0kyXtyUjPquFofZTLVUGwq10Tb+JiCez6eyQw"
	got, err := hashWith("node-secret-1", []byte{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77})
	if err != nil || got != want {
		t.Errorf("got %s, %v", got, err)
	}
	for _, c := range []struct {
		name, hash, password string
		ok                   bool
		err                  error
	}{
		{"right", want, "node-secret-1", true, nil},
		{"wrong", want, "node-secret-2", false, nil},
		{"other version", strings.Replace(want, "$1", "$2", 1), "x", false, ErrHash},
		{"costly", strings.Replace(want, ":15:", ":30:", 1), "x", false, ErrHash},
		{"no key", "$1:00:15:8:1:", "x", false, ErrHash},
		{"empty", "", "x", false, ErrHash},
	} {
		ok, err := Verify(c.hash, Secret(c.password))
		if ok != c.ok || !errors.Is(err, c.err) {
			t.Errorf("%s: got %v, %v; want %v, %v", c.name, ok, err, c.ok, c.err)
		}
	}
	fresh, err := Hash("p")
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := Verify(fresh, "p"); !ok || err != nil {
		t.Errorf("a fresh hash: %v, %v", ok, err)
	}
}

func TestPasswdFileIsRKE2s(t *testing.T) {
	got, err := RenderPasswd([]User{{"node", "a,b\"c", []string{RoleAgent}}, {"server", "s", []string{RoleServer, "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	want := "\"a,b\"\"c\",node,node,rke2:agent\ns,server,server,\"rke2:server,x\"\n"
	if string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := ParsePasswd([]byte("a,b\n")); err == nil {
		t.Error("short row: no error")
	}
	if _, err := ParsePasswd([]byte("\"a,b\n")); err == nil {
		t.Error("open quote: no error")
	}
}

func TestEnsurePasswd(t *testing.T) {
	dir := t.TempDir()
	step := func(name string, server, agent Secret, exists bool, want Passwords, wantErr error) Passwords {
		t.Helper()
		got, err := EnsurePasswd(dir, server, agent, exists)
		if !errors.Is(err, wantErr) || want != (Passwords{}) && got != want {
			t.Errorf("%s: got %q/%q, %v", name, got.Server.Reveal(), got.Agent.Reveal(), err)
		}
		return got
	}
	step("lost", "", "", true, Passwords{}, ErrTokenLost)
	first := step("generated", "", "", false, Passwords{}, nil)
	if len(first.Server) != 32 || first.Agent != first.Server {
		t.Errorf("generated: %q/%q", first.Server.Reveal(), first.Agent.Reveal())
	}
	step("kept", "", "", true, first, nil)
	step("kept in full form", Secret("K10::server:"+first.Server.Reveal()), "", true, first, nil)
	step("changed on a cluster", "other", "", true, Passwords{}, ErrTokenChanged)
	step("agent token", "", "agents", true, Passwords{first.Server, "agents"}, nil)
	step("agent token away", "", "", true, first, nil)
	step("changed before there is a cluster", "other", "", false, Passwords{"other", "other"}, nil)
	step("bootstrap form", "abcdef.0123456789abcdef", "", false, Passwords{}, ErrBootstrap)

	path := filepath.Join(dir, "cred", "passwd")
	data, err := os.ReadFile(path)
	if err != nil || string(data) != "other,node,node,rke2:agent\nother,server,server,rke2:server\n" {
		t.Errorf("file: %q, %v", data, err)
	}
	if err := os.WriteFile(path, append(data, "p,extra,extra,group\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	step("again", "", "x", true, Passwords{"other", "x"}, nil)
	if data, _ = os.ReadFile(path); !bytes.Contains(data, []byte("p,extra,extra,group\n")) {
		t.Errorf("a foreign row is gone: %q", data)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
}

func TestEnsureFiles(t *testing.T) {
	dir := t.TempDir()
	_, _, ca := issue(t, "root", nil, nil)
	if err := EnsureFiles(dir, ca, Passwords{"s", "a"}); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	hash, _ := CAHash(ca)
	if got, want := read("token"), "K10"+hash+"::server:s\n"; got != want || read("node-token") != want {
		t.Errorf("token: got %q, want %q", got, want)
	}
	if got, want := read("agent-token"), "K10"+hash+"::node:a\n"; got != want {
		t.Errorf("agent-token: got %q, want %q", got, want)
	}
	if err := EnsureFiles(dir, ca, Passwords{"s", "s"}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.Readlink(filepath.Join(dir, "agent-token")); err != nil || got != "token" {
		t.Errorf("agent-token: got link %q, %v", got, err)
	}
}

func TestTokensNeverPrint(t *testing.T) {
	tok, err := Parse("K10::server:hush")
	if err != nil {
		t.Fatal(err)
	}
	users, _ := ParsePasswd([]byte("hush,a,a,g\n"))
	if s := fmt.Sprintf("%v %+v %#v %v %#v", tok, tok, tok, users, Passwords{"hush", "hush"}); strings.Contains(s, "hush") {
		t.Errorf("printed: %s", s)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "K10", "K10::a:b", "abcdef.0123456789abcdef", "K10" + strings.Repeat("a", 64) + "::server:x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := Parse(Secret(s))
		if err != nil {
			if s != "" && len(s) > 3 && strings.Contains(err.Error(), s) {
				t.Fatal("the error holds the token")
			}
			return
		}
		if (tok.Password == "") == (tok.BootstrapID == "") {
			t.Fatalf("neither or both of password and bootstrap token: %q", s)
		}
		if tok.BootstrapID == "" {
			again, err := Parse(Secret("K10" + tok.CAHash + "::" + tok.User + ":" + tok.Password.Reveal()))
			if _, _, boot := bootstrapForm(tok.User + ":" + tok.Password.Reveal()); !boot && (err != nil || again.Password != tok.Password) {
				t.Fatalf("written and read again: %q, %v", s, err)
			}
		}
	})
}

func FuzzParsePasswd(f *testing.F) {
	f.Add([]byte("a,b,c,d\n"))
	f.Add([]byte("\"a\"\"\",b,c,\"d,e\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		users, err := ParsePasswd(data)
		if err != nil {
			return
		}
		out, err := RenderPasswd(users)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParsePasswd(out)
		if err != nil || fmt.Sprint(len(again)) != fmt.Sprint(len(users)) {
			t.Fatalf("written and read again: %v", err)
		}
	})
}

func FuzzVerify(f *testing.F) {
	f.Add("$1:0011223344556677:1:8:1:uTWS0mfqYvStMLg3")
	f.Fuzz(func(t *testing.T, hash string) {
		if strings.Contains(hash, ":15:") || strings.Contains(hash, ":14:") {
			return // costs time, adds nothing
		}
		if ok, _ := Verify(hash, "x"); ok {
			t.Fatal("a foreign hash fits")
		}
	})
}
