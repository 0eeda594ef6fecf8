package server

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"syscall"
	"testing"
	"testing/synctest"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"keelson/node/supervisorclient"
)

func TestPersist(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	for _, c := range []struct {
		name  string
		err   error
		again bool
	}{
		{"no leader", fmt.Errorf("keep node password: %w", apierrors.NewInternalError(errors.New("etcdserver: request timed out"))), true},
		{"time-out", apierrors.NewTimeoutError("later", 1), true},
		{"too many", apierrors.NewTooManyRequests("later", 1), true},
		{"somebody was faster", apierrors.NewConflict(secrets, "x", errors.New("changed")), true},
		{"refused connection", &url.Error{Op: "Get", URL: "https://127.0.0.1:6443", Err: syscall.ECONNREFUSED}, true},
		{"a supervisor without a leader", &supervisorclient.Error{Code: 500}, true},
		{"a busy supervisor", &supervisorclient.Error{Kind: supervisorclient.ErrBusy, Code: 429}, true},
		{"a supervisor that does not answer", &supervisorclient.Error{Kind: supervisorclient.ErrUnreachable}, true},
		{"a supervisor that does not know us", &supervisorclient.Error{Kind: supervisorclient.ErrUnauthorized, Code: 401}, false},
		{"not allowed", apierrors.NewForbidden(secrets, "x", errors.New("no")), false},
		{"not there", apierrors.NewNotFound(secrets, "x"), false},
		{"anything else", errors.New("broken file"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t, nil)
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				err := s.persist(t.Context(), func(context.Context) error {
					if tries++; tries == 1 {
						return c.err
					}
					return nil
				})
				if again := tries == 2; again != c.again || (err == nil) != c.again {
					t.Errorf("got %d tries and %v", tries, err)
				}
			})
		})
	}
	t.Run("until the end", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		err := newServer(t, nil).persist(ctx, func(context.Context) error {
			cancel()
			return apierrors.NewTimeoutError("later", 1)
		})
		if !apierrors.IsTimeout(err) {
			t.Errorf("got %v", err)
		}
	})
}
