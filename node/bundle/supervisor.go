package main

import (
	"os"

	"k8s.io/component-base/version"

	"keelson/node/command"
)

// supervisor is node itself. As a program of the bundle it costs the image nothing and the machine little memory: all
// that it links is linked here anyway.
func supervisor() int {
	return command.Main(os.Args[1:], version.Get().GitVersion, os.Stdout, os.Stderr)
}
