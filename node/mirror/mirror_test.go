package mirror

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func TestNewWantsAll(t *testing.T) {
	n := newNode(t, nil)
	for name, drop := range map[string]func(*Config){
		"content": func(c *Config) { c.Content = nil },
		"images":  func(c *Config) { c.Images = nil },
		"peers":   func(c *Config) { c.Peers = nil },
		"TLS":     func(c *Config) { c.TLS = nil },
		"log":     func(c *Config) { c.Log = nil },
	} {
		c := n.config
		drop(&c)
		if _, err := New(c); err == nil {
			t.Errorf("without %s: no error", name)
		}
	}
	c := n.config
	c.Limits = Limits{}
	if m, err := New(c); err != nil || m.config.Limits != DefaultLimits() {
		t.Errorf("without limits: got %+v, %v", m, err)
	}
}

// The surface: what is served, what is not, and errors that the distribution API has names for.
func TestSurface(t *testing.T) {
	n := newNode(t, nil)
	n.image(t, busybox, 10)
	for _, c := range []struct {
		name, method, path, registry string
		code                         int
		problem                      string
	}{
		{"is this a registry?", "GET", "/v2/", "", 200, ""},
		{"without the slash", "GET", "/v2", "", 200, ""},
		{"push", "PUT", "/v2/library/busybox/manifests/1.36", "docker.io", 405, "UNSUPPORTED"},
		{"upload", "POST", "/v2/library/busybox/blobs/uploads/", "docker.io", 405, "UNSUPPORTED"},
		{"delete", "DELETE", "/v2/library/busybox/manifests/1.36", "docker.io", 405, "UNSUPPORTED"},
		{"list of tags", "GET", "/v2/library/busybox/tags/list", "docker.io", 404, "NAME_UNKNOWN"},
		{"a registry without a mirror", "GET", "/v2/library/busybox/manifests/1.36", "quay.io", 404, "NAME_UNKNOWN"},
		{"no registry", "GET", "/v2/library/busybox/manifests/1.36", "", 404, "NAME_UNKNOWN"},
		{"latest", "GET", "/v2/library/busybox/manifests/latest", "docker.io", 404, "NAME_UNKNOWN"},
		{"nobody has it", "GET", "/v2/library/busybox/manifests/0", "docker.io", 404, "BLOB_UNKNOWN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := n.fetch(t, c.method, c.path, c.registry, false)
			if got.err != nil || got.StatusCode != c.code || got.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
				t.Fatalf("got %v %+v, want %d", got.err, got.Response, c.code)
			}
			var body struct {
				Errors []struct{ Code, Message string }
			}
			if err := json.Unmarshal(got.body, &body); err != nil {
				t.Fatalf("%v: %s", err, got.body)
			}
			switch {
			case c.problem == "" && len(body.Errors) != 0, c.problem != "" && (len(body.Errors) != 1 || body.Errors[0].Code != c.problem || body.Errors[0].Message == ""):
				t.Errorf("got %s, want %s", got.body, c.problem)
			}
		})
	}
}

// Only who comes over the loopback, and does not say that it is a peer, is this machine's containerd.
func TestIsOwn(t *testing.T) {
	for _, c := range []struct {
		from, header string
		want         bool
	}{
		{"127.0.0.1:1", "", true}, {"[::1]:1", "", true}, {"[::ffff:127.0.0.1]:1", "", true},
		{"127.0.0.1:1", "true", false}, {"10.0.0.1:1", "", false}, {"@", "", false}, {"", "", false},
	} {
		r := &http.Request{RemoteAddr: c.from, Header: http.Header{}}
		if c.header != "" {
			r.Header.Set(HeaderPeer, c.header)
		}
		if got := isOwn(r); got != c.want {
			t.Errorf("%q %q: got %v, want %v", c.from, c.header, got, c.want)
		}
	}
}

// A refusal after a peer's answer came to nothing says nothing of that answer.
func TestRefuseForgetsAnAnswer(t *testing.T) {
	n := newNode(t, nil)
	bad := &liar{size: 5, get: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5")
		w.Write([]byte("wrong"))
	}}
	n.peers = []string{address(serve(t, bad))}
	got := n.own(t, "/v2/library/busybox/manifests/"+someDigest)
	if got.err != nil || got.StatusCode != 404 || got.Header.Get("Docker-Content-Digest") != "" || !strings.HasPrefix(string(got.body), `{"errors"`) {
		t.Errorf("got %v %+v %s", got.err, got.Response, got.body)
	}
}
