package mirror

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// containerd itself pulls an image through a node that does not have it from one that does: name, manifest, layers, and
// a layer from its middle.
func TestContainerdPullsFromPeer(t *testing.T) {
	far, near := newNode(t, nil), newNode(t, nil)
	p := far.image(t, busybox, 3<<20)
	near.peers = []string{address(newNode(t, nil).server), address(far.server)}
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: func(string) ([]docker.RegistryHost, error) {
		return []docker.RegistryHost{{
			Client: near.server.Client(), Host: address(near.server), Scheme: "https", Path: "/v2",
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		}}, nil
	}})
	ctx := t.Context()
	name, desc, err := resolver.Resolve(ctx, busybox)
	if err != nil {
		t.Fatal(err)
	}
	if desc.Digest != p.manifest.Digest || desc.MediaType != ocispec.MediaTypeImageManifest || desc.Size != int64(len(p.raw)) {
		t.Fatalf("resolve: got %+v", desc)
	}
	fetcher, err := resolver.Fetcher(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	for want, desc := range map[string]ocispec.Descriptor{string(p.raw): desc, string(p.bytes): p.layer} {
		blob, err := fetcher.Fetch(ctx, desc)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(blob); err != nil || string(got) != want {
			t.Errorf("%s: got %d bytes, %v, want %d", desc.MediaType, len(got), err, len(want))
		}
		if s, ok := blob.(io.Seeker); ok {
			if _, err := s.Seek(int64(len(want)-100), io.SeekStart); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(blob); err != nil || string(got) != want[len(want)-100:] {
				t.Errorf("%s from its middle: got %d bytes, %v", desc.MediaType, len(got), err)
			}
		}
		_ = blob.Close()
	}
	if _, _, err := resolver.Resolve(ctx, "docker.io/library/absent:1"); err == nil {
		t.Error("an image that nobody has was resolved")
	}
}

// A tag is asked of others even where this node knows it: what it meant here may be old. Others are told what it means here.
func TestTagsAreAskedOfOthers(t *testing.T) {
	here, there := newNode(t, nil), newNode(t, nil)
	here.put(t, namespace, "docker.io/library/busybox", ocispec.MediaTypeImageManifest, []byte(`{"layers":[],"old":true}`))
	old := here.image(t, busybox, 10)
	fresh := there.image(t, busybox, 20)
	path := "/v2/library/busybox/manifests/1.36"
	if got := here.own(t, path); got.StatusCode != 404 {
		t.Errorf("without peers: got %s, want 404, so that the registry is asked", got.Status)
	}
	here.peers = []string{address(there.server)}
	if got := here.own(t, path); got.StatusCode != 200 || !bytes.Equal(got.body, fresh.raw) {
		t.Errorf("got %s %s, want the peer's", got.Status, got.body)
	}
	if got := here.fetch(t, http.MethodGet, path, "docker.io", true); got.StatusCode != 200 || !bytes.Equal(got.body, old.raw) {
		t.Errorf("got %s %s, want this node's", got.Status, got.body)
	}
	if got := here.own(t, "/v2/library/busybox/blobs/"+old.layer.Digest.String()); got.StatusCode != 200 {
		t.Errorf("a layer that is here: got %s, want 200", got.Status)
	}
}

// A node never passes on another's question: nothing runs in circles.
func TestPeersAreAnsweredFromTheDiskAlone(t *testing.T) {
	one, two := newNode(t, nil), newNode(t, nil)
	p := two.image(t, busybox, 10)
	one.peers, two.peers = []string{address(two.server)}, []string{address(one.server)}
	path := "/v2/library/busybox/blobs/" + p.layer.Digest.String()
	if got := one.fetch(t, http.MethodGet, path, "docker.io", true); got.StatusCode != 404 {
		t.Errorf("got %s, want 404", got.Status)
	}
	if got := one.own(t, path); got.StatusCode != 200 {
		t.Errorf("asked by its own containerd: got %s, want 200", got.Status)
	}
}

// liar is a peer that says it has everything, and whose answers to GET are the test's.
type liar struct {
	asked atomic.Int32 // GETs
	get   func(w http.ResponseWriter, r *http.Request)
	size  int
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Length", strconv.Itoa(l.size))
		w.Header().Set("Docker-Content-Digest", r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:])
		return
	}
	l.asked.Add(1)
	l.get(w, r)
}

// What a peer does wrong costs its own answer and no more: another one is asked, as long as nothing was sent on.
func TestBadPeers(t *testing.T) {
	const size = 3 * chunk
	sized := func(n int, then func(w http.ResponseWriter)) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(n))
			then(w)
		}
	}
	for _, c := range []struct {
		name  string
		get   func(w http.ResponseWriter, r *http.Request)
		late  bool // noticed when a part has been sent on
		log   string
		again int32 // how often it is asked by a second question
	}{
		{"has nothing after all", http.NotFound, false, "does not have it", 1},
		{"is broken", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "x", 500) }, false, "answered 500", 1},
		{"sends elsewhere", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1:1/", http.StatusFound)
		}, false, "answered 302", 1},
		{"sends a part unasked", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1")
			w.WriteHeader(206)
		}, false, "unasked", 1},
		{"says no size", func(w http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(w).Flush() }, false, "no size", 1},
		{"sends something else that is small", sized(5, func(w http.ResponseWriter) { io.WriteString(w, "wrong") }), false, "not that of its digest", 0},
		{"sends something else that is large", sized(size, func(w http.ResponseWriter) { w.Write(make([]byte, size)) }), true, "not that of its digest", 0},
		{"names another digest", sized(5, func(w http.ResponseWriter) { w.Header().Set("Docker-Content-Digest", someDigest) }), false, "another digest", 1},
		{"ends early", sized(5, func(w http.ResponseWriter) { io.WriteString(w, "x"); panic(http.ErrAbortHandler) }), false, "EOF", 1},
		{"hangs", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, false, "no progress", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			good := newNode(t, nil)
			p := good.image(t, busybox, size)
			bad := &liar{get: c.get, size: size}
			server := serve(t, bad)
			impatient := func(limits *Config) {
				if c.name == "hangs" {
					limits.Limits.Stall = time.Second
				}
			}
			asking := newNode(t, impatient)
			asking.peers = []string{address(server)}
			path := "/v2/library/busybox/blobs/" + p.layer.Digest.String()

			got := asking.own(t, path)
			if c.late {
				if got.err == nil {
					t.Fatalf("got a whole answer of %d bytes", len(got.body))
				}
				if len(got.body) >= size {
					t.Error("all was sent on before the digest was known")
				}
			} else if got.err != nil || got.StatusCode != 404 {
				t.Fatalf("got %v %+v, want 404", got.err, got.Response)
			}
			if log := asking.log.String(); !strings.Contains(log, c.log) {
				t.Errorf("log: got %s, want %q", log, c.log)
			}
			before := bad.asked.Load()
			asking.own(t, path)
			if n := bad.asked.Load() - before; (n > 0) != (c.again > 0) {
				t.Errorf("a second question: asked %d times, want %d: %s", n, c.again, asking.log)
			}

			fresh := newNode(t, impatient)
			fresh.peers = []string{address(server), address(good.server)}
			for range 8 { // whichever is asked first
				got := fresh.own(t, path)
				if c.late && got.err != nil {
					continue
				}
				if got.err != nil || got.StatusCode != 200 || !bytes.Equal(got.body, p.bytes) {
					t.Fatalf("with a good peer beside it: got %v %+v", got.err, got.Response)
				}
			}
		})
	}
}

// A peer that sent something else is not asked again for a while, then again.
func TestBanEnds(t *testing.T) {
	m := memory{most: 1, ban: time.Hour, holders: map[string]string{}, banned: map[string]time.Time{}}
	m.distrust("a:1")
	if !m.isBanned("a:1") || m.isBanned("b:1") {
		t.Error("a:1 alone should be banned")
	}
	m.ban = -time.Hour
	m.distrust("a:1")
	if m.isBanned("a:1") {
		t.Error("the ban has not ended")
	}
	m.distrust("b:1")
	if len(m.banned) != 1 {
		t.Errorf("ended bans are kept: %v", m.banned)
	}
}

// Who had the last thing of a repository is asked first, and alone, for the next.
func TestHolderIsRemembered(t *testing.T) {
	var heads atomic.Int32
	var others []string
	for range 5 {
		empty := newNode(t, nil)
		counting := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { heads.Add(1); empty.ServeHTTP(w, r) }))
		others = append(others, address(counting))
	}
	holder, asking := newNode(t, nil), newNode(t, nil)
	p := holder.image(t, busybox, 1000)
	second := holder.image(t, "docker.io/library/alpine:3", 1000)
	asking.peers = append(others, address(holder.server))
	if got := asking.own(t, "/v2/library/busybox/manifests/1.36"); got.StatusCode != 200 {
		t.Fatalf("got %s", got.Status)
	}
	before := heads.Load()
	for range 3 {
		if got := asking.own(t, "/v2/library/busybox/blobs/"+p.layer.Digest.String()); got.StatusCode != 200 {
			t.Fatalf("got %s", got.Status)
		}
	}
	if n := heads.Load() - before; n != 0 {
		t.Errorf("others were asked %d times", n)
	}
	if got := asking.own(t, "/v2/library/alpine/blobs/"+second.layer.Digest.String()); got.StatusCode != 200 {
		t.Fatalf("got %s", got.Status)
	}
	asking.peers = others
	if got := asking.own(t, "/v2/library/busybox/blobs/"+p.layer.Digest.String()); got.StatusCode != 404 {
		t.Errorf("of a holder that is no peer any more: got %s, want 404", got.Status)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := memory{most: 3, holders: map[string]string{}}
	for i := range 100 {
		m.remember(question{registry: "r", repository: strconv.Itoa(i)}, "p")
	}
	if len(m.holders) != 3 || m.holder(question{registry: "r", repository: "99"}) != "p" {
		t.Errorf("got %v", m.holders)
	}
}

// A search ends in its time though a peer does not answer, and finds what another has.
func TestSilentPeers(t *testing.T) {
	silent := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	holder := newNode(t, nil)
	p := holder.image(t, busybox, 1000)
	path := "/v2/library/busybox/blobs/" + p.layer.Digest.String()
	asking := newNode(t, nil)
	asking.peers = []string{address(silent), address(holder.server)}
	if got := asking.own(t, path); got.StatusCode != 200 {
		t.Errorf("got %s, want the holder's answer", got.Status)
	}
	lonely := newNode(t, func(c *Config) { c.Limits.Search = 50 * time.Millisecond })
	lonely.peers = []string{address(silent)}
	if got := lonely.own(t, path); got.StatusCode != 404 {
		t.Errorf("got %s, want 404", got.Status)
	}
}

// A certificate that is not believed is as if the peer were not there.
func TestForeignPeer(t *testing.T) {
	holder := newNode(t, nil)
	p := holder.image(t, busybox, 1000)
	asking := newNode(t, func(c *Config) {
		c.TLS = func() (*tls.Config, error) { return &tls.Config{RootCAs: x509.NewCertPool()}, nil }
	})
	asking.peers = []string{address(holder.server)}
	if got := asking.own(t, "/v2/library/busybox/blobs/"+p.layer.Digest.String()); got.StatusCode != 404 {
		t.Errorf("got %s, want 404", got.Status)
	}
	if log := asking.log.String(); !strings.Contains(log, "certificate") {
		t.Errorf("log: got %s", log)
	}
}

// What this machine's containerd asks and what others ask have places of their own, and beyond them is a clear answer.
func TestPlaces(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	slow := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { started <- struct{}{}; <-release; http.NotFound(w, r) }))
	n := newNode(t, func(c *Config) { c.Limits.Local, c.Limits.Remote = 1, 1 })
	n.peers = []string{address(slow)}
	path := "/v2/library/busybox/blobs/" + someDigest
	var asking sync.WaitGroup
	asking.Go(func() { n.own(t, path) })
	<-started
	if got := n.own(t, path); got.StatusCode != http.StatusTooManyRequests || !strings.Contains(string(got.body), "TOOMANYREQUESTS") {
		t.Errorf("a second: got %s %s, want 429", got.Status, got.body)
	}
	if got := n.fetch(t, http.MethodGet, path, "docker.io", true); got.StatusCode != 404 {
		t.Errorf("another node's: got %s, want 404", got.Status)
	}
	close(release)
	asking.Wait()
	n.peers = nil
	if got := n.own(t, path); got.StatusCode != 404 {
		t.Errorf("after it: got %s, want 404", got.Status)
	}
}

// The last bytes wait until all are known to be right, in whatever pieces they come.
func TestHolding(t *testing.T) {
	for _, pieces := range []int{0, 1, 2, 7} {
		t.Run(fmt.Sprint(pieces), func(t *testing.T) {
			var out bytes.Buffer
			h := &holding{to: newPaced(recorder{&out}, time.Minute)}
			var all string
			for i := range pieces {
				piece := strings.Repeat(strconv.Itoa(i), i+1)
				all += piece
				if n, err := h.Write([]byte(piece)); n != len(piece) || err != nil {
					t.Fatal(n, err)
				}
				if want := all[:len(all)-len(piece)]; out.String() != want || h.sent != (want != "") {
					t.Errorf("after piece %d: got %q, sent %v, want %q", i, out.String(), h.sent, want)
				}
			}
			if err := h.flush(); err != nil || out.String() != all {
				t.Errorf("in the end: got %q, %v, want %q", out.String(), err, all)
			}
		})
	}
}

// recorder is a ResponseWriter without a connection.
type recorder struct{ *bytes.Buffer }

func (recorder) Header() http.Header { return http.Header{} }
func (recorder) WriteHeader(int)     {}

// judge believes no size that a manifest cannot have, and no tag without its digest.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name   string
		q      question
		length int64
		digest string
		ok     bool
	}{
		{"a blob", question{digest: someDigest}, 1 << 40, "", true},
		{"a large manifest", question{digest: someDigest, manifest: true}, mostManifest + 1, "", false},
		{"a tag", question{tag: "x", manifest: true}, 5, someDigest, true},
		{"a tag without digest", question{tag: "x", manifest: true}, 5, "", false},
		{"a tag with half a digest", question{tag: "x", manifest: true}, 5, "sha256:00", false},
	} {
		answer := &http.Response{StatusCode: 200, ContentLength: c.length, Header: http.Header{"Docker-Content-Digest": {c.digest}}, Request: &http.Request{}}
		if err := judge(answer, c.q); (err == nil) != c.ok {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}
