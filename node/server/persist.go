package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"keelson/node/status"
	"keelson/node/supervisorclient"
)

// persistEvery is how long a step waits before it asks again, and askLimit how long a joining server asks a join server
// that it trusts: it may be gone by then, and the next start asks another.
const (
	listenWithin = 200 * time.Millisecond // on loopback
	persistEvery = time.Second
	askLimit     = time.Minute
)

// persistently asks a join server that may be busy, or whose etcd may be electing a leader because of this very join.
func persistently[T any](ctx context.Context, s *Server, ask func(context.Context) (T, error)) (answer T, err error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	err = s.persist(ctx, func(ctx context.Context) (err error) {
		answer, err = ask(ctx)
		return err
	})
	return answer, err
}

// persist does what needs kube-apiserver or another server until it succeeds, ctx ends, or the answer is one that time
// does not change. While etcd elects a leader kube-apiserver answers with errors: a server that came up in that moment
// would end.
func (s *Server) persist(ctx context.Context, try func(context.Context) error) error {
	for {
		err := try(ctx)
		if err == nil || ctx.Err() != nil || !isPassing(err) {
			return err
		}
		s.log.Warn("asked again", "error", err)
		status.Reason(ctx, err)
		if cause := wait(ctx, persistEvery); cause != nil {
			return errors.Join(cause, err)
		}
	}
}

// wait lasts d, or until ctx ends, which is the error.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// listens tells whether somebody takes connections at an address of this machine.
func listens(ctx context.Context, address string) bool {
	conn, err := (&net.Dialer{Timeout: listenWithin}).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// isPassing tells whether kube-apiserver or a supervisor, or the way to it, may answer otherwise in a moment.
func isPassing(err error) bool {
	var refused *supervisorclient.Error
	if errors.As(err, &refused) {
		return refused.Code >= http.StatusInternalServerError || errors.Is(err, supervisorclient.ErrBusy) || errors.Is(err, supervisorclient.ErrUnreachable)
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		code := status.Status().Code
		return code >= http.StatusInternalServerError || code == http.StatusTooManyRequests || code == http.StatusConflict
	}
	var network net.Error
	return errors.As(err, &network)
}
