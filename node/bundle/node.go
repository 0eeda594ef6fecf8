package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	flannelversion "github.com/flannel-io/flannel/pkg/version"
	"k8s.io/component-base/version"

	"keelson/node/cloudprovider"
	"keelson/node/crictl"
	"keelson/node/flannel"
	"keelson/node/localpath"
	"keelson/node/networkpolicy"
)

func cloudControllerManager() int {
	command, err := cloudprovider.Command()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cloud-controller-manager:", err)
		return 1
	}
	return component(command)
}

func flanneld() int {
	options, err := flannel.ParseArguments(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "flanneld:", err)
		return 2
	}
	if options.Version {
		fmt.Println(flannelversion.Version)
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := flannel.Run(ctx, options); err != nil {
		fmt.Fprintln(os.Stderr, "flanneld:", err)
		return 1
	}
	return 0
}

func networkPolicy() int {
	options, err := networkpolicy.ParseArguments(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "network-policy:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := networkpolicy.Run(ctx, options); err != nil {
		fmt.Fprintln(os.Stderr, "network-policy:", err)
		return 1
	}
	return 0
}

func localPath() int {
	options, err := localpath.ParseArguments(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "local-path:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := localpath.Run(ctx, options); err != nil {
		fmt.Fprintln(os.Stderr, "local-path:", err)
		return 1
	}
	return 0
}

func cri() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return crictl.Main(ctx, os.Args[1:], crictl.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, version.Get().GitVersion)
}
