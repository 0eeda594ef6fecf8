// Package metadatatest stands in for the metadata services in tests: a server
// with recorded answers, and a client whose every connection ends there.
package metadatatest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"keelson/init/metadata"
)

// Server answers by a folder of recorded bodies, its tree that of the paths.
type Server struct {
	Folder string
	// Before answers in place of the folder where it returns true.
	Before func(w http.ResponseWriter, r *http.Request) bool

	mu    sync.Mutex
	asked []string
}

// Asked lists what was asked: address dialled, method, path, and the headers'
// names that are not the client's own.
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

// Start serves until the test ends. The client may dial the addresses given;
// any other one fails the test.
func (s *Server) Start(t testing.TB, addresses ...string) *metadata.Client {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.Method+" "+r.Host+r.URL.RequestURI())
		s.mu.Unlock()
		if s.Before != nil && s.Before(w, r) {
			return
		}
		file, err := os.ReadFile(filepath.Join(s.Folder, filepath.FromSlash(filepath.Clean("/"+r.URL.Path))))
		if err != nil {
			http.Error(w, "<html>404 - Not Found</html>", http.StatusNotFound)
			return
		}
		w.Write(file)
	}))
	t.Cleanup(srv.Close)
	return &metadata.Client{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		for _, a := range addresses {
			if a == address {
				return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
			}
		}
		return nil, fmt.Errorf("dial %s: nobody is there in this test", address)
	}}
}

// Body reads a request's body.
func Body(t testing.TB, r *http.Request) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}
