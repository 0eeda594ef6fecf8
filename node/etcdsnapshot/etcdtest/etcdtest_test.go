package etcdtest

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestSurvive(t *testing.T) {
	answer, err := survive(t.Context(), "ask", nil, func(_ context.Context, request any) (any, error) { return request, nil })
	if answer != "ask" || err != nil {
		t.Errorf("got %v, %v of a call that answers", answer, err)
	}
	answer, err = survive(t.Context(), nil, nil, func(context.Context, any) (any, error) { panic("not a member") })
	if got, want := status.Code(err), codes.Unavailable; answer != nil || got != want {
		t.Errorf("got %v, %v of a call that panics, want %v", answer, err, want)
	}
}
