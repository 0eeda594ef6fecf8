package reencryption

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"keelson/node/encryption"
	"keelson/node/token"
	"keelson/node/trust"
)

// supervisor answers as a server does: what status and config say is the test's.
type supervisor struct {
	mu     sync.Mutex // guards what follows
	asked  []string   // method, path and body
	status []string   // one answer after the other, the last for good
	code   int        // of status; 0: 200
	config func(w http.ResponseWriter)
}

func (s *supervisor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user, password, _ := r.BasicAuth()
	body, _ := io.ReadAll(r.Body)
	switch {
	case user != token.UserServer || password != "secret":
		http.Error(w, "not authorized", http.StatusUnauthorized)
	case r.URL.Path == "/v1-rke2/readyz":
		w.WriteHeader(http.StatusForbidden)
	case r.URL.Path == "/v1-rke2/encrypt/status" && r.Method == http.MethodGet:
		s.asked = append(s.asked, "GET")
		if s.code != 0 {
			w.WriteHeader(s.code)
		}
		_, _ = io.WriteString(w, s.status[0])
		if len(s.status) > 1 {
			s.status = s.status[1:]
		}
	case r.URL.Path == "/v1-rke2/encrypt/config" && r.Method == http.MethodPut:
		s.asked = append(s.asked, "PUT "+r.Header.Get("Content-Type")+" "+string(body))
		if s.config != nil {
			s.config(w)
		}
	default:
		http.NotFound(w, r)
	}
}

// access trusts it.
func (s *supervisor) access(t *testing.T) trust.Access {
	t.Helper()
	server := httptest.NewUnstartedServer(s)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	access, err := trust.Validate(t.Context(), trust.Config{
		Server: server.URL, Token: "secret", User: token.UserServer, Log: slog.New(slog.DiscardHandler),
		CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	})
	if err != nil {
		t.Fatal(err)
	}
	return access
}

func TestAsk(t *testing.T) {
	enabled := true
	want := Status{
		Stage: encryption.Rotate, ActiveKey: "AES-CBC a", Enable: &enabled, HashMatch: true, InactiveKeys: []string{"AES-CBC b"},
		Keelson: Progress{Change: "rotate", Done: 3},
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, answer string
		code         int
		err          string
	}{
		{"status", string(text), 0, ""},
		{"of RKE2, which tells no progress", `{"stage":"start","activekey":"AES-CBC a","enable":true}`, 0, ""},
		{"no status", "hello", 0, "answers what is no status"},
		{"refusal in words", `{"kind":"Status","message":"runtime core not ready"}`, 503, `503 Service Unavailable: runtime core not ready`},
		{"refusal", "<html>", 502, "502 Bad Gateway"},
		{"without an end", `{"activekey":"` + strings.Repeat("x", 1<<20), 0, "answers what is no status"},
	} {
		s := &supervisor{status: []string{c.answer}, code: c.code}
		got, err := Ask(t.Context(), s.access(t))
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.err)
		}
		if c.name == "status" && !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestAskNobody(t *testing.T) {
	access := (&supervisor{}).access(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Ask(ctx, access); err == nil || !strings.HasPrefix(err.Error(), "encryption: ") {
		t.Errorf("got %v", err)
	}
	r := Request{}
	if _, err := r.Request(ctx, access); err == nil || !strings.HasPrefix(err.Error(), "encryption: ") {
		t.Errorf("got %v", err)
	}
}

// TestRequestWaitsForTheEnd: a change goes on after it was taken in; who asked for it learns how it ended.
func TestRequestWaitsForTheEnd(t *testing.T) {
	stage := encryption.RotateKeys
	s := &supervisor{status: []string{`{"stage":"prepare","keelson":{"running":true}}`, `{"stage":"reencrypt_finished","keelson":{"running":false,"done":5}}`}}
	got, err := Request{Stage: &stage, Force: true}.Request(t.Context(), s.access(t))
	if err != nil || got.Stage != encryption.Finished || got.Keelson.Done != 5 {
		t.Errorf("got %+v, %v", got, err)
	}
	if want := []string{`PUT application/json {"stage":"rotate_keys","force":true,"skip":false}`, "GET", "GET"}; !reflect.DeepEqual(s.asked, want) {
		t.Errorf("asked %q, want %q", s.asked, want)
	}
}

func TestRequestFails(t *testing.T) {
	enable := false
	r := Request{Enable: &enable}
	refused := &supervisor{config: func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"message":"not at this stage"}`)
	}}
	if _, err := r.Request(t.Context(), refused.access(t)); err == nil || !strings.Contains(err.Error(), `400 Bad Request: not at this stage`) || len(refused.asked) != 1 {
		t.Errorf("refused: got %v after %q", err, refused.asked)
	}
	failed := &supervisor{status: []string{`{"stage":"rotate","keelson":{"running":false,"error":"cp-3 lags"}}`}}
	got, err := r.Request(t.Context(), failed.access(t))
	if err == nil || !strings.HasSuffix(err.Error(), ": cp-3 lags") || got.Stage != encryption.Rotate {
		t.Errorf("failed: got %+v, %v", got, err)
	}
	endless := &supervisor{status: []string{`{"keelson":{"running":true}}`}}
	access := endless.access(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := r.Request(ctx, access); err == nil || !strings.Contains(err.Error(), "the change goes on") {
		t.Errorf("who does not wait: got %v", err)
	}
}
