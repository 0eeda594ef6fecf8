package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// persistEvery is how long a step waits before it asks kube-apiserver again.
const persistEvery = time.Second

// persist does what needs kube-apiserver until it succeeds, ctx ends, or the answer is one that time does not change.
// While etcd elects a leader kube-apiserver answers with errors: a server that came up in that moment would end.
func (s *Server) persist(ctx context.Context, try func(context.Context) error) error {
	tick := time.NewTicker(persistEvery)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil || ctx.Err() != nil || !isPassing(err) {
			return err
		}
		s.log.Warn("kube-apiserver is asked again", "error", err)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// isPassing tells whether kube-apiserver, or the way to it, may answer otherwise in a moment.
func isPassing(err error) bool {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		code := status.Status().Code
		return code >= http.StatusInternalServerError || code == http.StatusTooManyRequests || code == http.StatusConflict
	}
	var network net.Error
	return errors.As(err, &network)
}
