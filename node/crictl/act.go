package crictl

import (
	"context"
	"flag"
	"fmt"
	"net/url"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crilogs "k8s.io/cri-client/pkg/logs"
)

func pull(ctx context.Context, t *tool, args []string) error {
	flags := flag.NewFlagSet("pull", flag.ContinueOnError)
	if err := t.parse(flags, args, 1, 1); err != nil {
		return err
	}
	id, err := t.images.PullImage(ctx, &runtimeapi.ImageSpec{Image: flags.Arg(0)}, nil, nil)
	if err != nil {
		return err
	}
	fmt.Fprintln(t.Out, "Image is up to date for", id)
	return nil
}

func logs(ctx context.Context, t *tool, args []string) error {
	var options crilogs.LogOptions
	flags := flag.NewFlagSet("logs", flag.ContinueOnError)
	flags.BoolVar(&options.Follow, "f", false, "follow")
	tail := flags.Int64("tail", -1, "only the last lines")
	if err := t.parse(flags, args, 1, 1); err != nil {
		return err
	}
	if *tail >= 0 {
		options.TailLines = tail
	}
	answer, err := t.runtime.ContainerStatus(ctx, flags.Arg(0), false)
	if err != nil {
		return err
	}
	state := answer.GetStatus()
	if state.GetLogPath() == "" {
		return fmt.Errorf("container %s has no log file", state.GetId())
	}
	return crilogs.ReadLogs(ctx, state.LogPath, state.Id, &options, t.runtime, t.Out, t.Err)
}

func inspect(ctx context.Context, t *tool, args []string) error {
	flags := flag.NewFlagSet("inspect", flag.ContinueOnError)
	if err := t.parse(flags, args, 1, 1); err != nil {
		return err
	}
	answer, err := t.runtime.ContainerStatus(ctx, flags.Arg(0), true)
	if err != nil {
		return err
	}
	return printJSON(t.Out, answer)
}

func info(ctx context.Context, t *tool, args []string) error {
	if err := t.parse(flag.NewFlagSet("info", flag.ContinueOnError), args, 0, 0); err != nil {
		return err
	}
	answer, err := t.runtime.Status(ctx, true)
	if err != nil {
		return err
	}
	return printJSON(t.Out, answer)
}

func showVersion(ctx context.Context, t *tool, args []string) error {
	if err := t.parse(flag.NewFlagSet("version", flag.ContinueOnError), args, 0, 0); err != nil {
		return err
	}
	answer, err := t.runtime.Version(ctx, "v1")
	if err != nil {
		return err
	}
	fmt.Fprintf(t.Out, "Version:            %s\nRuntimeName:        %s\nRuntimeVersion:     %s\nRuntimeApiVersion:  %s\n",
		t.version, answer.RuntimeName, answer.RuntimeVersion, answer.RuntimeApiVersion)
	return nil
}

// execute streams a command's input and outputs. Terminals are not offered.
func execute(ctx context.Context, t *tool, args []string) error {
	flags := flag.NewFlagSet("exec", flag.ContinueOnError)
	input := flags.Bool("i", false, "pass the input on")
	if err := t.parse(flags, args, 2, -1); err != nil {
		return err
	}
	answer, err := t.runtime.Exec(ctx, &runtimeapi.ExecRequest{
		ContainerId: flags.Arg(0), Cmd: flags.Args()[1:], Stdin: *input, Stdout: true, Stderr: true,
	})
	if err != nil {
		return err
	}
	address, err := url.Parse(answer.Url)
	if err != nil {
		return fmt.Errorf("parse streaming address: %w", err)
	}
	executor, err := remotecommand.NewSPDYExecutor(&rest.Config{}, "POST", address)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", address.Host, err)
	}
	streams := remotecommand.StreamOptions{Stdout: t.Out, Stderr: t.Err}
	if *input {
		streams.Stdin = t.In
	}
	return executor.StreamWithContext(ctx, streams)
}
