package rotation

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/node/bootstrapdata"
	"keelson/node/supervisorapi"
	"keelson/node/token"
	"keelson/node/trust"
)

// authority makes a certificate that is its own authority and serves 127.0.0.1.
func authority(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// supervise runs the real supervisor API for a machine, and gives its URL. Users change live.
func (m *machine) supervise(t *testing.T, cert tls.Certificate, ca []byte) (*Rotator, string) {
	t.Helper()
	api, err := supervisorapi.New(supervisorapi.Config{
		Certificate: func() (*tls.Certificate, error) { return &cert, nil }, ClientCA: ca, Log: slog.New(slog.DiscardHandler),
		Limits: supervisorapi.Limits{RequestsPerSecond: 1000, RequestBurst: 1000, FailuresPerMinute: 1000},
	})
	if err != nil {
		t.Fatal(err)
	}
	var r *Rotator
	refuse := func(err error) error {
		if err != nil {
			return &supervisorapi.Refusal{Code: 400, Message: err.Error()}
		}
		return nil
	}
	install := func(users []token.User) error {
		return api.Install(supervisorapi.Handlers{
			CACerts: ca, Users: users, Ready: func() bool { return true },
			APIServers: func(context.Context) ([]string, error) { return nil, nil },
			Bootstrap: func(ctx context.Context, password token.Secret) ([]byte, error) {
				data, err := bootstrapdata.Load(ctx, m.store, password)
				if err != nil {
					return nil, err
				}
				return data.Encode()
			},
			RotateToken: func(ctx context.Context, next token.Secret) error {
				_, err := r.Rotate(ctx, r.Passwords().Server, next)
				return refuse(err)
			},
			FinishRotation: func(ctx context.Context, shown token.Secret) error { return refuse(r.Finish(ctx, shown)) },
		})
	}
	cfg := m.config()
	cfg.Changed = func(users []token.User) error {
		err := install(users)
		m.changed <- users
		return err
	}
	if r, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := install(r.Users()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	run(t, r)
	return r, "https://" + l.Addr().String()
}

// TestSupervisorsTakeTheNewTokenAtOnce: two real supervisors over TLS and a real etcd; none of them restarts.
func TestSupervisorsTakeTheNewTokenAtOnce(t *testing.T) {
	cert, ca := authority(t)
	client := etcd(t)
	a := newMachine(t, client, newClock(), passwd("old"))
	a.write(t, "tls/server-ca.crt", string(ca))
	a.save(t, "old")
	b := a.copyOf(t, client)
	ra, urlA := a.supervise(t, cert, ca)
	_, urlB := b.supervise(t, cert, ca)

	join := func(url, user string, password token.Secret) (trust.Access, error) {
		full, err := token.Format(ca, user, password)
		if err != nil {
			t.Fatal(err)
		}
		return trust.Validate(t.Context(), trust.Config{Server: url, Token: full, User: user, Log: slog.New(slog.DiscardHandler)})
	}
	all := func(password token.Secret, want error) {
		t.Helper()
		for _, url := range []string{urlA, urlB} {
			for _, user := range []string{token.UserServer, token.UserNode} {
				if _, err := join(url, user, password); !errors.Is(err, want) {
					t.Errorf("%s with %s: got %v, want %v", user, password.Reveal(), err, want)
				}
			}
		}
	}
	all("old", nil)
	all("next", trust.ErrWrongToken)
	if _, err := ra.Rotate(t.Context(), "old", "next"); err != nil {
		t.Fatal(err)
	}
	a.await(t, "next", "old")
	b.await(t, "next", "old")
	all("next", nil)

	// The other server hands out the record to who shows the new token.
	access, err := join(urlB, token.UserServer, "next")
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, access.Server+supervisorapi.Prefix+"/server-bootstrap", nil)
	if err != nil {
		t.Fatal(err)
	}
	access.Authorize(r)
	h := access.Client(nil)
	defer h.CloseIdleConnections()
	answer, err := h.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("server-bootstrap: %s, %v", answer.Status, err)
	}
	data, err := bootstrapdata.Decode(body)
	if err != nil || string(data["PasswdFile"].Content) != passwd("next") {
		t.Errorf("server-bootstrap: the password file is %q, %v", data["PasswdFile"].Content, err)
	}

	a.clock.move(time.Hour)
	a.await(t, "next")
	b.await(t, "next")
	all("old", trust.ErrWrongToken)
	all("next", nil)
}

// TestFirstUsePinOutlivesARotation: the pin is of the authority, which the token's rotation does not touch.
func TestFirstUsePinOutlivesARotation(t *testing.T) {
	cert, ca := authority(t)
	m := newMachine(t, etcd(t), newClock(), passwd("old"))
	m.write(t, "tls/server-ca.crt", string(ca))
	m.save(t, "old")
	r, url := m.supervise(t, cert, ca)
	c := trust.Config{Server: url, Token: "old", User: token.UserNode, PinFile: filepath.Join(t.TempDir(), "pin"), Log: slog.New(slog.DiscardHandler)}
	if _, err := trust.Validate(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rotate(t.Context(), "old", "next"); err != nil {
		t.Fatal(err)
	}
	c.Token = "next"
	if got, err := trust.Validate(t.Context(), c); err != nil || !got.TrustedOnFirstUse {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestAsk: the operator's side against answers of a server.
func TestAsk(t *testing.T) {
	cert, ca := authority(t)
	m := newMachine(t, etcd(t), newClock(), passwd("old"))
	m.write(t, "tls/server-ca.crt", string(ca))
	m.save(t, "old")
	_, url := m.supervise(t, cert, ca)
	full, err := token.Format(ca, token.UserServer, "old")
	if err != nil {
		t.Fatal(err)
	}
	access, err := trust.Validate(t.Context(), trust.Config{Server: url, Token: full, User: token.UserServer, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	gone, err := access.At("https://" + address)
	if err != nil {
		t.Fatal(err)
	}
	if err := Ask(t.Context(), gone, "next"); err == nil || !strings.Contains(err.Error(), "does no harm") {
		t.Errorf("nobody there: got %v", err)
	}
}

// stuck is a store that has lost its majority.
type stuck struct{ Store }

func (stuck) List(ctx context.Context, _ string) ([]bootstrapdata.Record, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestReadersDoNotWaitForEtcd: who logs in, or asks for the status, while etcd is silent.
func TestReadersDoNotWaitForEtcd(t *testing.T) {
	m := newMachine(t, etcd(t), newClock(), passwd("old"))
	cfg := m.config()
	cfg.Store = stuck{m.store}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := r.Rotate(ctx, "old", "next")
		done <- err
	}()
	if got := serverTokens(r.Users()); len(got) != 1 || got[0] != "old" || r.Passwords().Server != "old" {
		t.Errorf("got %q", got)
	}
	if _, ok := r.Overlap(); ok {
		t.Error("an overlap")
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestOverlapEndsWithoutEtcd: a server that was restarted during the overlap, and whose etcd is silent since.
func TestOverlapEndsWithoutEtcd(t *testing.T) {
	m := newMachine(t, etcd(t), newClock(), passwd("old"))
	m.save(t, "old")
	if _, err := m.boot(t).Rotate(t.Context(), "old", "next"); err != nil {
		t.Fatal(err)
	}
	m.await(t, "next", "old")
	cfg := m.config()
	cfg.Store = silent{m.store}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan struct{}, 1)
	r.cfg.After = func(d time.Duration) <-chan time.Time {
		ch := m.clock.After(d)
		select {
		case waits <- struct{}{}:
		default:
		}
		return ch
	}
	run(t, r)
	<-waits
	m.clock.move(time.Hour)
	m.await(t, "next")
	if got := m.read(t, "cred/passwd-previous.json"); strings.Contains(got, `"old"`) {
		t.Errorf("the token before is still on disk: %s", got)
	}
}

// silent is a store that tells of no change and answers nothing.
type silent struct{ Store }

func (silent) List(context.Context, string) ([]bootstrapdata.Record, error) {
	return nil, errors.New("no leader")
}

func (silent) Changes(ctx context.Context, _ string) <-chan struct{} {
	told := make(chan struct{})
	context.AfterFunc(ctx, func() { close(told) })
	return told
}
