package addons

import (
	"context"
	"testing"
)

// A file with a kind that is to come waits for it, untold; what others hold does not.
func TestKindsToCome(t *testing.T) {
	h := newHarness(t)
	served := make(chan struct{})
	h.cfg.Coming = map[string]<-chan struct{}{"x.io": served}
	h.write("a.yaml", "apiVersion: x.io/v1\nkind: Widget\nmetadata: {name: w, namespace: default}\n")
	h.write("b.yaml", configMap("one"))
	ctx, cancel := context.WithCancel(t.Context())
	c, err := New(h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if c.pass(ctx) {
		t.Error("nothing is left to be done")
	}
	h.want(cm + "one")
	if e := <-h.events; e.Addon != "b" || len(h.events) > 0 {
		t.Errorf("got %+v and %d more, want b alone", e, len(h.events))
	}
	if h.cluster.addon("a") != nil {
		t.Error("it is told of a")
	}
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	h.kinds.widgets = func() bool { return true }
	close(served)
	for e := range h.events {
		if e.Addon != "a" {
			continue
		}
		if e.Err != nil {
			t.Error(e.Err)
		}
		break
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
