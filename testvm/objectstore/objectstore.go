// Package objectstore is an object store of the S3 kind in the process of a test, by another hand than the client that
// is tested against it.
//
// It listens on loopback, which a machine reaches where its network shares the port. It speaks plain HTTP and takes any
// key. Nothing is kept: the objects go with the process.
package objectstore

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// Store is a running one.
type Store struct {
	listener net.Listener
	server   *http.Server
	backend  gofakes3.Backend
	done     chan error
}

// Start listens on a free port of the loopback, with one empty bucket.
func Start(bucket string) (*Store, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start object store: %w", err)
	}
	s := &Store{listener: listener, backend: s3mem.New(), done: make(chan error, 1)}
	if err := s.backend.CreateBucket(bucket); err != nil {
		return nil, errors.Join(fmt.Errorf("make bucket %s: %w", bucket, err), listener.Close())
	}
	s.server = &http.Server{
		Handler:           gofakes3.New(s.backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server(),
		ReadHeaderTimeout: 10 * time.Second,
	}
	go func() { s.done <- s.server.Serve(listener) }()
	return s, nil
}

// Port is where it listens on the loopback.
func (s *Store) Port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// Names lists the objects of a bucket.
func (s *Store) Names(bucket string) ([]string, error) {
	list, err := s.backend.ListBucket(bucket, nil, gofakes3.ListBucketPage{})
	if err != nil {
		return nil, fmt.Errorf("list bucket %s: %w", bucket, err)
	}
	var names []string
	for _, o := range list.Contents {
		names = append(names, o.Key)
	}
	return names, nil
}

// Close ends it.
func (s *Store) Close() error {
	err := s.server.Close()
	if e := <-s.done; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	if err != nil {
		return fmt.Errorf("end object store: %w", err)
	}
	return nil
}
