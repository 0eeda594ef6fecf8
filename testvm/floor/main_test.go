package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRefusesToBeAnythingButInit(t *testing.T) {
	if err := run(); err == nil || !strings.Contains(err.Error(), "init of a machine") {
		t.Errorf("run: got %v, want a refusal", err)
	}
}

// Every file that the programs are told of is one that the initramfs has
// (package bench) or that they make in /tmp.
func TestArgumentsNameFilesThatAreThere(t *testing.T) {
	have := map[string]bool{"ca.crt": true, "server.crt": true, "server.key": true, "client.crt": true, "client.key": true, "service.key": true}
	for _, command := range [][]string{etcd(), apiserver()} {
		for _, arg := range command[1:] {
			name, value, ok := strings.Cut(arg, "=")
			if !strings.HasPrefix(name, "--") {
				t.Errorf("%s: argument %q is not a flag", command[0], arg)
			}
			if !ok || !filepath.IsAbs(value) {
				continue
			}
			if file, in := strings.CutPrefix(value, pki); in && !have[file] || !in && !strings.HasPrefix(value, "/tmp") {
				t.Errorf("%s: %s names %s, which is not in the initramfs", command[0], name, value)
			}
		}
	}
}

func TestStartSaysWhyAProgramEnded(t *testing.T) {
	if err := start([]string{"keelson-no-such-program"}, make(chan error, 1)); err == nil || !strings.Contains(err.Error(), "start keelson-no-such-program") {
		t.Errorf("start: got %v, want an error that names the program", err)
	}
	os.Remove("/tmp/keelson-no-such-program.log")
}
