package metadata

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// serve is a service on 192.0.2.1.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return &Client{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != "192.0.2.1:80" && address != "192.0.2.1:8080" {
			t.Errorf("dialled %s", address)
		}
		return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
	}}
}

// The client agrees with net/http about every way to frame a body.
func TestBodies(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    []byte
	}{
		"with a length": {func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello")) }, []byte("hello")},
		"empty":         {func(http.ResponseWriter, *http.Request) {}, nil},
		"no content":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, nil},
		"chunked": {func(w http.ResponseWriter, _ *http.Request) {
			for part := range bytes.SplitSeq(large, []byte("f")) {
				w.Write(append(part, 'f'))
				w.(http.Flusher).Flush()
			}
		}, append(bytes.Clone(large), 'f')},
		"moved": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/a" {
				http.Redirect(w, r, "/b?c=d", http.StatusFound)
				return
			}
			w.Write([]byte(r.URL.RequestURI()))
		}, []byte("/b?c=d")},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := serve(t, c.handler).Get(t.Context(), "http://192.0.2.1/a", nil)
			if err != nil || !bytes.Equal(got, c.want) {
				t.Errorf("got %d bytes %v, want %d", len(got), err, len(c.want))
			}
		})
	}
}

func TestRequest(t *testing.T) {
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != "PUT" || r.Host != "metadata.example" || r.URL.RequestURI() != "/x%20y?a=b" || r.Header.Get("X-Token") != "t" || string(body) != "data" {
			t.Errorf("got %s %s %s %v %q", r.Method, r.Host, r.URL, r.Header, body)
		}
	})
	_, err := client.Do(t.Context(), Request{Method: "PUT", URL: "http://192.0.2.1:8080/x%20y?a=b", Host: "metadata.example",
		Header: map[string]string{"X-Token": "t"}, Body: []byte("data")})
	if err != nil {
		t.Error(err)
	}
}

func TestStatus(t *testing.T) {
	for status, c := range map[int]struct{ notFound, final bool }{
		404: {true, false}, 403: {false, true}, 400: {false, true}, 410: {}, 429: {}, 500: {}, 503: {}, 304: {false, true},
	} {
		client := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		_, err := client.Get(t.Context(), "http://192.0.2.1/secret?token=abc", nil)
		if err == nil || errors.Is(err, ErrNotFound) != c.notFound || errors.Is(err, ErrFinal) != c.final {
			t.Errorf("%d: got %v", status, err)
		}
		if err != nil && strings.Contains(err.Error(), "abc") {
			t.Errorf("%d: the message shows the query: %v", status, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"https://192.0.2.1/": "https is not spoken", "ftp://192.0.2.1/": `"ftp" is not spoken`, "http:///x": "is no address",
		"": "is no address", "http://%zz/": "is no address",
	} {
		_, err := (&Client{}).Get(t.Context(), address, nil)
		if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, ErrFinal) {
			t.Errorf("%s: got %v, want %s", address, err, want)
		}
	}
	endless := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) })
	if _, err := endless.Get(t.Context(), "http://192.0.2.1/", nil); err == nil || !strings.Contains(err.Error(), "from address to address") {
		t.Errorf("got %v", err)
	}
	leads := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://192.0.2.1/", http.StatusFound)
	})
	if _, err := leads.Get(t.Context(), "http://192.0.2.1/", nil); err == nil || !strings.Contains(err.Error(), "https is not spoken") {
		t.Errorf("got %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	client := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.CopyN(w, zeros{}, MaxBody+1) })
	if _, err := client.Get(t.Context(), "http://192.0.2.1/", nil); !errors.Is(err, ErrFinal) || !strings.Contains(err.Error(), "4 MiB") {
		t.Errorf("got %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// A service that takes the connection and says nothing is given up.
func TestSilence(t *testing.T) {
	for scheme, limit := range map[string]time.Duration{"http": timeout, "https": secure} {
		synctest.Test(t, func(t *testing.T) {
			connect := func() (net.Conn, error) {
				near, far := net.Pipe()
				go io.Copy(io.Discard, far)
				return near, nil
			}
			client := &Client{
				Dial:   func(context.Context, string, string) (net.Conn, error) { return connect() },
				Secure: func(context.Context, string) (net.Conn, error) { return connect() },
			}
			start := time.Now()
			_, err := client.Get(t.Context(), scheme+"://192.0.2.1/", nil)
			if err == nil || !strings.Contains(err.Error(), "no whole answer within "+limit.String()) || time.Since(start) != limit {
				t.Errorf("%s: got %v after %s", scheme, err, time.Since(start))
			}
		})
	}
}

func TestBrokenAnswers(t *testing.T) {
	for text, want := range map[string]string{
		"": "no answer", "SSH-2.0-OpenSSH_9\r\n": "is not HTTP", "HTTP/1.1 2x0 OK\r\n\r\n": "is not HTTP", "HTTP/1.1 100 Continue\r\n\r\n": "is not HTTP",
		"HTTP/1.1 200 OK\r\nbroken\r\n\r\n": "header", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 70_000): "too long",
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort":                   "5 bytes of 9",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n":                       "no number",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n":                  "not known",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n":         "size of a chunk",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab":        "unexpected EOF",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabXX0\r\n": "does not end",
	} {
		if _, err := parseAnswer(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %s", text, err, want)
		}
	}
}

func TestDocuments(t *testing.T) {
	if got := Meta("EC2", "i\n1", "a\"b"); string(got[0].Data) != "instance-id: \"i\\n1\"\nlocal-hostname: \"a\\\"b\"\n" {
		t.Errorf("got %s", got[0].Data)
	}
	if got := Meta("EC2", "", ""); got != nil {
		t.Errorf("got %v, want none", got)
	}
	if got := Word([]byte(" a b \nc")); got != "a b" {
		t.Errorf("got %q", got)
	}
	var z bytes.Buffer
	gz := gzip.NewWriter(&z)
	gz.Write([]byte("x"))
	gz.Close()
	if got := Document("EC2", "user-data", z.Bytes()); !bytes.Equal(got[0].Data, z.Bytes()) {
		t.Error("want compressed bytes as they are")
	}
	if _, err := Optional(nil, ErrNotFound); err != nil {
		t.Error(err)
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseAnswer(bytes.NewReader(data))
		if err == nil && (a.Status < 200 || len(a.Body) > len(data)) {
			t.Errorf("got status %d and %d bytes of %d", a.Status, len(a.Body), len(data))
		}
	})
}

// An https address goes through Secure, port and host as they are written, and
// never on to http.
func TestSecure(t *testing.T) {
	leads := map[string]string{"/https": "https://other.example:8443/there", "/http": "http://other.example/there"}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if to := leads[r.URL.Path]; to != "" {
			http.Redirect(w, r, to, http.StatusFound)
			return
		}
		w.Write([]byte(r.Host + r.URL.Path))
	}))
	defer srv.Close()
	var dialled []string
	client := &Client{
		Dial: func(context.Context, string, string) (net.Conn, error) {
			t.Error("dialled without TLS")
			return nil, errors.New("no")
		},
		Secure: func(ctx context.Context, address string) (net.Conn, error) {
			dialled = append(dialled, address)
			return (&net.Dialer{}).DialContext(ctx, "tcp", srv.Listener.Addr().String())
		},
	}
	got, err := client.Get(t.Context(), "https://seed.example/https", nil)
	if want := "other.example:8443/there"; err != nil || string(got) != want {
		t.Errorf("got %q %v, want %q", got, err, want)
	}
	if want := "seed.example:443 other.example:8443"; strings.Join(dialled, " ") != want {
		t.Errorf("dialled %q, want %s", dialled, want)
	}
	if _, err := client.Get(t.Context(), "https://seed.example/http", nil); !errors.Is(err, ErrFinal) || !strings.Contains(err.Error(), "which is not https") {
		t.Errorf("got %v, want no way to http", err)
	}
}
