package machine

import (
	"context"
	"time"

	"keelson/testvm/access"
	"keelson/testvm/cidata"
	"keelson/testvm/console"
	"keelson/testvm/kube"
)

// Computer is what a scenario needs of a machine, whatever it is made of: Machine is one of QEMU, package netns has
// another of namespaces.
type Computer interface {
	Start(ctx context.Context) error    // switches it on
	PowerCut(ctx context.Context) error // takes the power away
	Shutdown(ctx context.Context) error // asks it to switch itself off, and waits
	Started() time.Time                 // when the present boot began

	Console() *console.Console // of all boots
	Mark() console.Mark        // where the present boot begins in it
	Expect(ctx context.Context, pattern string) (console.Line, error)
	Milestone(ctx context.Context, name string) (console.Line, error)

	Kubeconfig(ctx context.Context) ([]byte, error) // of an administrator, by way of this server
	Client(ctx context.Context) (*kube.Client, error)
	Supervisor() access.Server

	Reseed(seed cidata.Volume) error // other user-data, from the next boot on
	Report(ctx context.Context, dir, why string, keepDisk bool) error
	Remove() error // ends it, and deletes its files
}

var _ Computer = (*Machine)(nil)
