// Command testvm starts Keelson in QEMU for a person: `testvm run` boots an
// image with a user-data file, shows the boot, prints the node once it is Ready
// and leaves a kubeconfig; `testvm bench` measures.
//
// `make run` and `make bench` call it. The scenarios are Go tests in
// testvm/scenario. All that is decided here is what the flags say; the work is
// done by the packages below.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testvm:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "run":
			return runCommand(ctx, args[1:])
		case "bench":
			return benchCommand(ctx, args[1:])
		}
	}
	return errors.New("want `testvm run` or `testvm bench`, with -help for their flags")
}
