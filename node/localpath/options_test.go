package localpath

import (
	"io"
	"strings"
	"testing"
)

func TestParseArguments(t *testing.T) {
	o, err := ParseArguments([]string{"--node-name=a", "--dir=/var/lib/x/", "--kubeconfig=/k"}, io.Discard)
	if want := (Options{Node: "a", Dir: "/var/lib/x", Kubeconfig: "/k"}); err != nil || o != want {
		t.Errorf("got %+v, %v, want %+v", o, err, want)
	}
	for name, c := range map[string]struct {
		args string
		want string
	}{
		"no node":       {"--dir=/x", "--node-name"},
		"no folder":     {"--node-name=a", "--dir"},
		"relative":      {"--node-name=a --dir=x", `"x" is no folder`},
		"the root":      {"--node-name=a --dir=/x/..", "is no folder"},
		"no flag":       {"--node-name=a --dir=/x more", `"more" is not a flag`},
		"unknown flags": {"--volumes=1", "flag provided but not defined"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseArguments(strings.Fields(c.args), io.Discard); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
