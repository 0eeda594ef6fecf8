// Package crictl looks at the container runtime through its CRI socket: a small one with the commands and output of
// cri-tools' crictl that an operator uses most, because cri-tools is no module that can be had.
//
// It only asks the runtime; what it changes is what it is told to (pull, exec). The bundle has it as a program, and
// `node crictl` calls that.
package crictl

import (
	"context"
	"flag"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	criclient "k8s.io/cri-client/pkg"
)

// DefaultEndpoint is where RKE2's containerd listens, and ours.
const DefaultEndpoint = "unix:///run/k3s/containerd/containerd.sock"

// Streams are the program's input and outputs.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// tool is what a command works with.
type tool struct {
	Streams
	runtime internalapi.RuntimeService
	images  internalapi.ImageManagerService
	version string
}

// command is one of the program's verbs.
type command struct {
	usage string
	run   func(ctx context.Context, t *tool, args []string) error
}

func commands() map[string]command {
	return map[string]command{
		"ps":      {"ps [-a] [-q] [-o json|table] [--name substring] [--pod id]: list containers", containers},
		"pods":    {"pods [-q] [-o json|table] [--name substring]: list pods", pods},
		"images":  {"images [-q] [-o json|table]: list images", images},
		"pull":    {"pull IMAGE: pull an image", pull},
		"logs":    {"logs [-f] [--tail n] CONTAINER: show a container's output", logs},
		"inspect": {"inspect CONTAINER: show a container's state", inspect},
		"exec":    {"exec [-i] CONTAINER COMMAND [ARG...]: run a command in a container", execute},
		"info":    {"info: show the runtime's state", info},
		"version": {"version: show the runtime's version", showVersion},
	}
}

// Main runs one command and returns the exit code. version is shown for --version.
func Main(ctx context.Context, args []string, streams Streams, version string) int {
	flags := flag.NewFlagSet("crictl", flag.ContinueOnError)
	flags.SetOutput(streams.Err)
	flags.Usage = func() { usage(streams.Err) }
	endpoint := flags.String("runtime-endpoint", DefaultEndpoint, "")
	flags.StringVar(endpoint, "r", DefaultEndpoint, "")
	timeout := flags.Duration("timeout", 2*time.Second, "")
	only := flags.Bool("version", false, "")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *only {
		fmt.Fprintln(streams.Out, "crictl version", version)
		return 0
	}
	cmd, ok := commands()[flags.Arg(0)]
	if !ok {
		usage(streams.Err)
		return 2
	}
	t := &tool{Streams: streams, version: version}
	if err := t.connect(ctx, *endpoint, *timeout); err != nil {
		fmt.Fprintln(streams.Err, "crictl:", err)
		return 1
	}
	defer t.runtime.Close(ctx)
	defer t.images.Close(ctx)
	if err := cmd.run(ctx, t, flags.Args()[1:]); err != nil {
		if s, ok := status.FromError(err); ok {
			err = fmt.Errorf("%s", s.Message())
		}
		fmt.Fprintf(streams.Err, "crictl: %s: %v\n", flags.Arg(0), err)
		return 1
	}
	return 0
}

func (t *tool) connect(ctx context.Context, endpoint string, timeout time.Duration) (err error) {
	t.runtime, err = criclient.NewRemoteRuntimeServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(timeout).WithTracerProvider(nil).Build(ctx)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", endpoint, err)
	}
	t.images, err = criclient.NewRemoteImageServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(timeout).WithTracerProvider(nil).Build(ctx)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", endpoint, err)
	}
	return nil
}

func usage(w io.Writer) {
	fmt.Fprintf(w, "crictl [-r ENDPOINT] [--timeout DURATION] COMMAND\n  ENDPOINT is %s by default\n", DefaultEndpoint)
	var lines []string
	for _, c := range commands() {
		lines = append(lines, "  "+c.usage)
	}
	sort.Strings(lines)
	fmt.Fprintln(w, strings.Join(lines, "\n"))
}

// parse reads a command's own flags and checks how many arguments are left.
func (t *tool) parse(flags *flag.FlagSet, args []string, least, most int) error {
	flags.SetOutput(t.Err)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if n := flags.NArg(); n < least || (most >= 0 && n > most) {
		return fmt.Errorf("got %d arguments; usage: %s", n, commands()[flags.Name()].usage)
	}
	return nil
}
