// Package registry is a small OCI registry in the process of a test, and the
// image of package workload built from source into it.
//
// It listens on loopback, which a guest of package qemu reaches at
// qemu.HostInGuest. Nothing is kept: the images go with the process. It speaks
// plain HTTP, as a mirror in registries.yaml may.
package registry

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Registry is a running one.
type Registry struct {
	listener net.Listener
	server   *http.Server
	done     chan error

	mu       sync.Mutex // guards requests
	requests []string
}

// Start listens on a free port of the loopback.
func Start() (*Registry, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start registry: %w", err)
	}
	r := &Registry{listener: listener, done: make(chan error, 1)}
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	r.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			r.mu.Lock()
			r.requests = append(r.requests, req.Method+" "+req.URL.Path)
			r.mu.Unlock()
			handler.ServeHTTP(w, req)
		}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	go func() { r.done <- r.server.Serve(listener) }()
	return r, nil
}

// Close ends it.
func (r *Registry) Close() error {
	err := r.server.Close()
	<-r.done
	return err
}

// Port it listens on.
func (r *Registry) Port() int { return r.listener.Addr().(*net.TCPAddr).Port }

// Requests that came so far, as "GET /v2/...", to prove what was pulled here.
func (r *Registry) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// Pulled reports whether the manifest of a repository was asked for.
func (r *Registry) Pulled(repository string) bool {
	return slices.ContainsFunc(r.Requests(), func(req string) bool {
		return strings.HasPrefix(req, "GET /v2/"+repository+"/manifests/")
	})
}

// Push puts an image in, as repository:tag without a host.
func (r *Registry) Push(ctx context.Context, image v1.Image, repositoryTag string) error {
	ref, err := name.ParseReference(fmt.Sprintf("127.0.0.1:%d/%s", r.Port(), repositoryTag), name.Insecure, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("push image: %w", err)
	}
	if err := remote.Write(ref, image, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("push image %s: %w", repositoryTag, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = nil // our own
	return nil
}
