package server

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"keelson/node/config"
	"keelson/node/trust"
)

// The server to join by is down, another of the settings is there.
func TestAlternativeJoinServer(t *testing.T) {
	members := []map[string]any{{"ID": 1, "clientURLs": []string{"https://10.0.2.15:2379"}}}
	first := newServer(t, func(c *config.Config) { c.Token = clusterToken })
	prepare(t, first)
	url := serveCluster(t, first, members)
	const gone = "https://127.0.0.1:1"
	s := joiner(t, gone, func(c *config.Config) { c.ServerAlternatives = []string{"https://127.0.0.1:2", url} })
	if err := s.joinCluster(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := s.etcdMembers(t.Context()); err != nil || !slices.Equal(got, []string{"https://10.0.2.15:2379"}) {
		t.Errorf("its members: got %v, %v", got, err)
	}
	s.settings.ServerAlternatives = s.settings.ServerAlternatives[:1]
	if _, err := s.askAnyServer(t.Context()); !errors.Is(err, trust.ErrUnreachable) || !strings.Contains(err.Error(), gone) {
		t.Errorf("none is there: got %v, want it about the one to join by", err)
	}
	s.settings.ServerAlternatives, s.settings.Token = []string{url}, "wrong"
	if _, err := s.askAnyServer(t.Context()); !errors.Is(err, trust.ErrUnreachable) {
		t.Errorf("none takes the token: got %v", err)
	}
}
