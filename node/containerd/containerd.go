// Package containerd renders what containerd is started with: its configuration, the registries it pulls from and the
// pod network its CRI service joins pods to.
//
// It starts nothing and writes nothing but what Apply is told to. node/server fills Params and gives
// registries.yaml; containerd reads the results (github.com/containerd/containerd/v2/cmd/containerd/server/config,
// docs/hosts.md there).
package containerd

import (
	"bytes"
	"fmt"
	"path"
	"strconv"
	"text/template"
)

// Paths that RKE2's tools and ours expect.
const (
	State  = "/run/k3s/containerd"
	Socket = State + "/containerd.sock"
	// NetworkDir is where the pod network's configuration lies.
	NetworkDir = "/etc/cni/net.d"
	// NetworkFile is the configuration of flannel in it.
	NetworkFile = NetworkDir + "/10-flannel.conflist"
)

// Snapshotter is the name under which node/snapshot's plugin is registered, and ImagesPlugin that of its other plugin,
// which tells containerd of the system images.
const (
	Snapshotter  = "keelson"
	ImagesPlugin = "keelson-system-images"
)

// Params says what differs from node to node.
type Params struct {
	DataDir      string     // <data>
	SandboxImage string     // full reference of the pause image
	NetworkBin   string     // folder of the CNI plugins
	Runc         string     // path of runc
	Platform     string     // such as linux/amd64
	Registries   Registries // its credentials go into the configuration, which is therefore for root alone
	Debug        bool
}

// RegistryDir is where the rendered registries lie, below the agent's folder.
func RegistryDir(dataDir string) string { return path.Join(dataDir, "agent/etc/containerd/certs.d") }

// ConfigPath is where the configuration belongs.
func ConfigPath(dataDir string) string { return path.Join(dataDir, "agent/etc/containerd/config.toml") }

// Render returns containerd's configuration, version 4.
func Render(p Params) ([]byte, error) {
	for name, value := range map[string]string{"data dir": p.DataDir, "sandbox image": p.SandboxImage, "network plugins": p.NetworkBin, "runc": p.Runc, "platform": p.Platform} {
		if value == "" {
			return nil, fmt.Errorf("render containerd configuration: no %s is given", name)
		}
	}
	t, err := template.New("config.toml").Funcs(template.FuncMap{"q": strconv.Quote}).Parse(configTemplate)
	if err != nil {
		return nil, fmt.Errorf("parse template of containerd configuration: %w", err)
	}
	level := "info"
	if p.Debug {
		level = "debug"
	}
	var out bytes.Buffer
	err = t.Execute(&out, map[string]any{
		"Root":        path.Join(p.DataDir, "agent/containerd"),
		"State":       State,
		"Socket":      Socket,
		"Imports":     path.Join(p.DataDir, "agent/etc/containerd/config.toml.d/*.toml"),
		"Level":       level,
		"Snapshotter": Snapshotter,
		"Images":      ImagesPlugin,
		"Sandbox":     p.SandboxImage,
		"Registries":  RegistryDir(p.DataDir),
		"NetworkBin":  p.NetworkBin,
		"NetworkDir":  NetworkDir,
		"Runc":        p.Runc,
		"Platform":    p.Platform,
		"Hosts":       p.Registries.withAuth(),
	})
	if err != nil {
		return nil, fmt.Errorf("render containerd configuration: %w", err)
	}
	return out.Bytes(), nil
}

// withAuth returns the hosts that have credentials. containerd's hosts.toml has no place for them.
func (r Registries) withAuth() []Host {
	var hosts []Host
	for _, h := range r.Configs {
		if h.Auth != nil {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// configTemplate is in the form of configuration version 4, in which the socket is a plugin's setting: a version 4
// file with version 3's [grpc] is read without complaint and listens elsewhere.
const configTemplate = `# Written by node at every start. Put your own settings into config.toml.d/*.toml beside this file.
version = 4
root = {{q .Root}}
state = {{q .State}}
imports = [{{q .Imports}}]
oom_score = -999

# Without these the daemon is of no use: it must not run on.
required_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.snapshotter.v1.{{.Snapshotter}}",
  "io.containerd.service.v1.{{.Images}}",
]
# What this machine has no use for: other snapshotters probe for file systems and programs that are not here, the
# restart monitor polls, opt wants a writable /opt, tracing has nowhere to send to.
disabled_plugins = [
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.native",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.differ.v1.erofs",
  "io.containerd.mount-handler.v1.erofs",
  "io.containerd.monitor.container.v1.restart",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.ttrpc.v1.otelttrpc",
]

[debug]
  level = {{q .Level}}

[plugins.'io.containerd.server.v1.grpc']
  address = {{q .Socket}}

[plugins.'io.containerd.server.v1.ttrpc']
  address = "{{.Socket}}.ttrpc"

[plugins.'io.containerd.nri.v1.nri']
  disable = true

[plugins.'io.containerd.service.v1.diff-service']
  default = ["walking"]

# The transfer service unpacks what the CRI pulls.
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = {{q .Platform}}
  snapshotter = {{q .Snapshotter}}
  differ = "walking"

[plugins.'io.containerd.grpc.v1.cri']
  stream_server_address = "127.0.0.1"
  stream_server_port = "10010"

[plugins.'io.containerd.cri.v1.images']
  snapshotter = {{q .Snapshotter}}

  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = {{q .Sandbox}}

  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = {{q .Registries}}
{{range .Hosts}}
    [plugins.'io.containerd.cri.v1.images'.registry.configs.{{q .Name}}.auth]
      username = {{q .Auth.Username}}
      password = {{q .Auth.Password}}
      auth = {{q .Auth.Auth}}
      identitytoken = {{q .Auth.IdentityToken}}
{{end}}
[plugins.'io.containerd.cri.v1.runtime']
  enable_selinux = false
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  # containerd's default is every second, from every container.
  stats_collect_period = "10s"

  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [{{q .NetworkBin}}]
    conf_dir = {{q .NetworkDir}}
    # Sets the loopback interface up itself instead of starting a plugin for it in every pod.
    use_internal_loopback = true

  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"

    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = {{q .Runc}}
        SystemdCgroup = false
`
