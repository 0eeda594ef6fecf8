// Package command is the command line of node: its verbs, and what each starts. It holds no logic of its own. Two
// programs are made of it: node itself, and the bundle, which answers to the same name on the machine.
package command

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"keelson/node/agent"
	"keelson/node/config"
	"keelson/node/server"
	"keelson/node/tlspipe"
)

// configFile is where RKE2 reads its configuration; the folder beside it with ".d" added holds drop-ins.
const configFile = "/etc/rancher/rke2/config.yaml"

const usage = `usage: node <verb> [arguments]

  server [--config FILE]      run this machine as a server of its cluster (what PID 1 starts)
  agent [--config FILE]       run it as an agent, which holds workloads alone
  status [-o text|json]       what this machine is to its cluster, and what it waits for
  certificate check|rotate-ca when certificates end; new authorities for the cluster
  token create|list|delete|generate|rotate|recover
                              tokens that machines join with
  secrets-encrypt status|rotate-keys|prepare|rotate|reencrypt|enable|disable
                              keys that encrypt Secrets at rest
  etcd-snapshot save|list|delete|prune
                              snapshots of etcd
  kubectl, ctr, crictl, etcdctl ARGUMENTS...
                              the tool of that name, set up for this machine
  version                     print versions
`

// Main runs the verb in args, which are without the program's name, and returns the exit status. version is what the
// program calls itself.
func Main(args []string, version string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	var err error
	switch verb, rest := args[0], args[1:]; verb {
	case "server":
		err = serve(rest, version, stdout, stderr)
	case "agent":
		err = join(rest, version, stdout, stderr)
	case "status":
		err = statusVerb(context.Background(), rest, version, time.Now(), stdout, stderr)
	case "certificate":
		err = certificates(context.Background(), rest, time.Now(), stdout, stderr)
	case "token":
		err = tokenVerb(context.Background(), rest, time.Now(), stdout, stderr)
	case "secrets-encrypt":
		err = secretsEncrypt(context.Background(), rest, stdout, stderr)
	case "etcd-snapshot":
		err = snapshots(context.Background(), rest, stdout, stderr)
	case "kubectl", "ctr", "crictl", "etcdctl":
		err = tool(verb, rest)
	case "tls":
		err = tlspipe.Main(context.Background(), rest, stdout)
	case "version", "--version":
		fmt.Fprintln(stdout, "node", version)
		return 0
	case "help", "-h", "--help":
		fmt.Fprint(stdout, usage)
		return 0
	default:
		fmt.Fprintf(stderr, "node: unknown verb %q\n\n%s", verb, usage)
		return 2
	}
	if err != nil {
		fmt.Fprintln(stderr, "node:", err)
		if args[0] == "server" || args[0] == "agent" {
			tell(stdout, err)
		}
		return 1
	}
	return 0
}

// tell puts the reason why a supervisor ended on the machine's console, where somebody may be looking at a machine
// that does not become a node. PID 1 shows the lines that begin so.
func tell(console io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(console, "keelson: node: %s\n", strings.TrimSpace(line))
	}
}

// serve runs the server until SIGTERM or SIGINT.
func serve(args []string, version string, stdout, stderr io.Writer) error {
	return supervise("server", args, version, stdout, stderr, func(settings config.Config, log *slog.Logger) (runner, error) {
		return server.New(server.Config{Settings: settings, Version: version, Environ: os.Environ(), Log: log, Console: stdout})
	})
}

// join runs the agent.
func join(args []string, version string, stdout, stderr io.Writer) error {
	return supervise("agent", args, version, stdout, stderr, func(settings config.Config, log *slog.Logger) (runner, error) {
		return agent.New(agent.Config{Settings: settings, Version: version, Environ: os.Environ(), Log: log, Console: stdout})
	})
}

type runner interface{ Run(context.Context) error }

// supervise loads the settings and runs what build makes of them.
func supervise(role string, args []string, version string, stdout, stderr io.Writer, build func(config.Config, *slog.Logger) (runner, error)) error {
	flags := flag.NewFlagSet("node "+role, flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", configFile, "configuration file; drop-ins are read from FILE.d")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%s: %w", role, err)
	}
	settings, warnings, err := load(role, *file)
	if err != nil {
		return fmt.Errorf("%s: %w", role, err)
	}
	level := slog.LevelInfo
	if settings.Debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	log.Info("starting", "version", version, "built_with", goVersion())
	for _, w := range warnings {
		log.Warn("settings", "file", w.File, "line", w.Line, "key", w.Key, "warning", w.Message)
		tell(stdout, w)
	}

	r, err := build(settings, log)
	if err != nil {
		return fmt.Errorf("%s: %w", role, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := r.Run(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", role, err)
	}
	return nil
}

func load(role, file string) (config.Config, []config.Problem, error) {
	if role == "agent" {
		return config.LoadAgent(file)
	}
	settings, err := config.Load(file)
	return settings, nil, err
}

// tool becomes one of the bundle's programs, with the environment that makes it find this machine's endpoints. What
// the caller has set wins.
func tool(name string, args []string) error {
	env := os.Environ()
	for _, d := range toolDefaults() {
		if _, set := os.LookupEnv(d.key); !set {
			env = append(env, d.key+"="+d.value)
		}
	}
	path := "/usr/bin/" + name
	if err := syscall.Exec(path, append([]string{name}, args...), env); err != nil {
		return fmt.Errorf("start %s: %w", path, err)
	}
	return nil
}

type variable struct{ key, value string }

// toolDefaults are RKE2's documented settings for its tools.
func toolDefaults() []variable {
	const etcdTLS = "/var/lib/rancher/rke2/server/tls/etcd/"
	return []variable{
		{"KUBECONFIG", "/etc/rancher/rke2/rke2.yaml"},
		{"CONTAINERD_ADDRESS", "/run/k3s/containerd/containerd.sock"},
		{"CONTAINERD_NAMESPACE", "k8s.io"},
		{"CONTAINER_RUNTIME_ENDPOINT", "unix:///run/k3s/containerd/containerd.sock"},
		{"ETCDCTL_ENDPOINTS", "https://127.0.0.1:2379"},
		{"ETCDCTL_CACERT", etcdTLS + "server-ca.crt"},
		{"ETCDCTL_CERT", etcdTLS + "client.crt"},
		{"ETCDCTL_KEY", etcdTLS + "client.key"},
	}
}

func goVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.GoVersion
	}
	return "unknown"
}
