package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"keelson/node/supervisorclient"
)

// persistEvery is how long a step waits before it asks again, and askLimit how long a joining server asks a join server
// that it trusts: it may be gone by then, and the next start asks another.
const (
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

// persist does what needs kube-apiserver or another server until it succeeds, ctx ends, or the answer is one that time does not change.
// While etcd elects a leader kube-apiserver answers with errors: a server that came up in that moment would end.
func (s *Server) persist(ctx context.Context, try func(context.Context) error) error {
	tick := time.NewTicker(persistEvery)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil || ctx.Err() != nil || !isPassing(err) {
			return err
		}
		s.log.Warn("asked again", "error", err)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
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
