package chartsource

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	chart "helm.sh/helm/v4/pkg/chart/v2"
	repo "helm.sh/helm/v4/pkg/repo/v1"
)

// answer is what a server says of one path.
type answer struct {
	content  []byte
	status   int    // 0: 200
	redirect string // where it leads
	login    string // user:password that it wants
	hang     context.Context
}

// web is a server that notes who has asked for what.
type web struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string // "path user:password"
}

func serve(t *testing.T, encrypted bool, answers map[string]answer) *web {
	t.Helper()
	w := &web{}
	w.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(out http.ResponseWriter, req *http.Request) {
		user, password, _ := req.BasicAuth()
		w.mu.Lock()
		w.asked = append(w.asked, strings.TrimSuffix(req.URL.Path+" "+user+":"+password, " :"))
		w.mu.Unlock()
		a, ok := answers[req.URL.Path]
		switch {
		case !ok:
			http.NotFound(out, req)
		case a.hang != nil:
			select {
			case <-a.hang.Done():
			case <-req.Context().Done():
			}
		case a.login != "" && user+":"+password != a.login:
			http.Error(out, "a secret of the server", http.StatusUnauthorized)
		case a.redirect != "":
			http.Redirect(out, req, a.redirect, http.StatusFound)
		case a.status != 0:
			http.Error(out, "a secret of the server", a.status)
		default:
			_, _ = out.Write(a.content)
		}
	}))
	w.Config.ErrorLog = nil
	if encrypted {
		w.StartTLS()
	} else {
		w.Start()
	}
	t.Cleanup(w.Close)
	return w
}

func (w *web) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.Certificate().Raw})
}

// was tells what was asked for, and forgets it.
func (w *web) was() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.asked = nil }()
	return strings.Join(w.asked, ", ")
}

// index is one that Helm has made of charts, by their names and versions.
func index(t testing.TB, urls string, digest string, versions ...string) []byte {
	t.Helper()
	file := repo.NewIndexFile()
	for _, v := range versions {
		for _, name := range []string{"web", "web-more", "we"} {
			if err := file.MustAdd(&chart.Metadata{APIVersion: "v2", Name: name, Version: v, Description: "a: b\n  web:\n- not it"}, name+"-"+v+".tgz", urls, digest); err != nil {
				t.Fatal(err)
			}
		}
	}
	file.SortEntries()
	to := filepath.Join(t.TempDir(), "index.yaml")
	if err := file.WriteFile(to, 0o600); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestWeb(t *testing.T) {
	b := newBench(t)
	one := archive(t, "web", "1.0.0")
	plain := serve(t, false, map[string]answer{"/web.tgz": {content: one}})
	server := serve(t, true, map[string]answer{
		"/web.tgz": {content: one}, "/closed.tgz": {content: one, login: "me:pw"}, "/broken.tgz": {status: 500},
		"/moved.tgz": {redirect: "/web.tgz"}, "/round.tgz": {redirect: "/round.tgz"}, "/down.tgz": {redirect: plain.URL + "/web.tgz"},
		"/long.tgz": {content: make([]byte, maxArchive+1)},
	})
	at := func(path string, change func(*Request)) Request {
		r := Request{Chart: server.URL + path, CA: server.ca()}
		if change != nil {
			change(&r)
		}
		return r
	}
	b.want(at("/web.tgz", nil), one)
	b.want(at("/web.tgz", func(r *Request) { r.CA = nil }), nil, "certificate")
	b.want(at("/web.tgz", func(r *Request) { r.CA = []byte("none") }), nil, "spec.repoCA")
	b.want(at("/web.tgz", func(r *Request) { r.CA, r.SkipVerify = nil, true }), one)
	b.want(at("/moved.tgz", nil), one)
	b.want(at("/round.tgz", nil), nil, "more than 5 times")
	b.want(at("/down.tgz", nil), nil, "without encryption")
	b.want(at("/down.tgz", func(r *Request) { r.PlainHTTP = true }), one)
	b.want(at("/long.tgz", nil), nil, "more than 20 MiB")
	b.want(at("/none.tgz", nil), nil, "404")
	b.want(at("/closed.tgz", nil), nil, "401")
	b.want(at("/closed.tgz", func(r *Request) { r.Username, r.Password = "me", "pw" }), one)
	b.want(Request{Chart: plain.URL + "/web.tgz"}, one)
	b.want(Request{Chart: "https://"}, nil, "no address")
	if _, err := b.Load(t.Context(), at("/broken.tgz", nil)); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want an error that quotes no answer", err)
	}
}

func TestRepository(t *testing.T) {
	b := newBench(t)
	one, two := archive(t, "web", "1.0.0"), archive(t, "web", "1.2.0")
	server := serve(t, true, map[string]answer{
		"/charts/index.yaml": {content: index(t, "files", "", "1.0.0", "1.2.0", "2.0.0-rc.1")}, "/charts/files/web-1.0.0.tgz": {content: one}, "/charts/files/web-1.2.0.tgz": {content: two},
		"/wrong/index.yaml": {content: index(t, "", "00"+strings.Repeat("ab", 31), "1.0.0")}, "/wrong/web-1.0.0.tgz": {content: one},
		"/junk/index.yaml": {content: []byte("<html>a secret of the server</html>: :\n- x")},
	})
	from := func(path, version string) Request {
		return Request{Chart: "web", Repo: server.URL + path, Version: version, CA: server.ca()}
	}
	b.want(from("/charts", ""), two)
	b.want(from("/charts/", "1.0.0"), one)
	b.want(from("/charts", "~1.0"), one)
	b.want(from("/charts", "2.0.0-rc.1"), nil, "404")
	b.want(from("/charts", ">=3"), nil, "spec.version", "1.2.0")
	b.want(from("/charts", "x y z"), nil, "spec.version")
	b.want(from("/none", ""), nil, "404")
	b.want(from("/wrong", ""), nil, "SHA-256")
	r := from("/charts", "")
	r.Chart = "absent"
	b.want(r, nil, `no chart "absent"`)
	if _, err := b.Load(t.Context(), from("/junk", "")); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want an error that quotes no answer", err)
	}
}

// Credentials stay with the repository's host, unless they are to go with the chart wherever it is.
func TestCredentials(t *testing.T) {
	b := newBench(t)
	one := archive(t, "web", "1.0.0")
	other := serve(t, false, map[string]answer{"/web-1.0.0.tgz": {content: one}})
	// The same machine by another name is another host.
	elsewhere := strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	server := serve(t, false, map[string]answer{
		"/away/index.yaml": {content: index(t, elsewhere, "", "1.0.0"), login: "me:pw"},
		"/here/index.yaml": {content: index(t, "", "", "1.0.0"), login: "me:pw"}, "/here/web-1.0.0.tgz": {content: one, login: "me:pw"},
		"/led/index.yaml": {content: index(t, "", "", "1.0.0")}, "/led/web-1.0.0.tgz": {redirect: elsewhere + "/web-1.0.0.tgz"},
	})
	for _, c := range []struct {
		path string
		pass bool
		want string // asked of the other host
	}{
		{"/here", false, ""},
		{"/away", false, "/web-1.0.0.tgz"},
		{"/away", true, "/web-1.0.0.tgz me:pw"},
		{"/led", false, "/web-1.0.0.tgz"},
		{"/led", true, "/web-1.0.0.tgz me:pw"},
	} {
		b.want(Request{Chart: "web", Repo: server.URL + c.path, Username: "me", Password: "pw", PassCredentials: c.pass}, one)
		if got := other.was(); got != c.want {
			t.Errorf("%s, pass %t: got %q, want %q", c.path, c.pass, got, c.want)
		}
	}
}
