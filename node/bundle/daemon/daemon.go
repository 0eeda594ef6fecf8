// Package daemon is containerd as the bundle has it: upstream's command with the plugins that a node uses and the
// snapshotter that knows the system images. It has no settings of its own; containerd's configuration file, which
// node/containerd renders, says everything. The bundle runs it; its test starts pods with it.
package daemon

import (
	"context"

	"github.com/containerd/containerd/v2/cmd/containerd/command"

	"keelson/node/snapshot"
)

// Run runs containerd with its command line, the program's name first.
func Run(ctx context.Context, args []string) error {
	snapshot.Register()
	return command.App().Run(ctx, args)
}
