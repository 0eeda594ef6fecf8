// Package kubelet renders what the kubelet is started with: its drop-in configuration and its arguments, as RKE2 has
// them (k3s pkg/daemons/agent/agent_linux.go; rancher/rke2 pkg/executor/staticpod).
//
// It starts nothing and writes nothing; volumes that a kubelet has left from before a boot are all it takes away. Params are filled by node/server from node/config; node/process runs the
// kubelet with the result.
package kubelet

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"keelson/node/argument"
)

// Params says what differs from node to node. All paths are absolute.
type Params struct {
	DataDir        string // <data>
	NodeName       string
	NodeIPs        []string
	ListenAddress  string // every address of the cluster's families; "" leaves it to the kubelet, which has IPv4 alone
	ClusterDNS     []string
	ClusterDomain  string
	Kubeconfig     string
	ClientCA       string
	ServingCert    string
	ServingKey     string
	ResolvConf     string
	RuntimeSocket  string // containerd's, without scheme
	PodManifests   string // folder of static pods
	CloudProvider  bool   // a cloud controller will initialise the Node
	ProtectKernel  bool
	Labels         map[string]string // as Labels returned them for the kubelet
	Taints         []string          // "key[=value]:effect", for the first registration
	ExtraArguments []string          // kubelet-arg
	Files          fs.FS             // the machine's files, rooted at /, for a configuration that the user names
}

// File is one file to write, with mode 0600.
type File struct {
	Path    string
	Content []byte
}

// Rendered is everything the kubelet starts from.
type Rendered struct {
	Dir   string // of the drop-ins; whatever else is in it must go
	Files []File // drop-ins, in the order the kubelet reads them
	Args  []string
}

// Render returns the drop-ins and the arguments.
func Render(p Params) (Rendered, error) {
	r := Rendered{Dir: path.Join(p.DataDir, "agent/etc/kubelet.conf.d")}
	defaults, err := settings(p)
	if err != nil {
		return Rendered{}, fmt.Errorf("render kubelet configuration: %w", err)
	}
	r.Files = append(r.Files, File{path.Join(r.Dir, "00-rke2-defaults.conf"), defaults})

	extra, user, err := p.userFiles(r.Dir)
	if err != nil {
		return Rendered{}, err
	}
	r.Files = append(r.Files, user...)

	args := map[string]string{
		"config-dir":        r.Dir,
		"kubeconfig":        p.Kubeconfig,
		"hostname-override": p.NodeName,
		// Its flag's default is an open port, and a configuration file cannot say 0 (k3s#12164).
		"read-only-port": "0",
	}
	if len(p.NodeIPs) > 0 {
		args["node-ip"] = strings.Join(p.NodeIPs, ",")
	}
	if p.CloudProvider {
		args["cloud-provider"] = "external"
	}
	if len(p.Labels) > 0 {
		var labels []string
		for _, key := range slices.Sorted(maps.Keys(p.Labels)) {
			labels = append(labels, key+"="+p.Labels[key])
		}
		args["node-labels"] = strings.Join(labels, ",")
	}
	if r.Args, err = argument.Merge(args, extra); err != nil {
		return Rendered{}, fmt.Errorf("render kubelet arguments: %w", err)
	}
	return r, nil
}

// userFiles takes `config` and `config-dir` out of the user's arguments and makes them drop-ins behind ours. Passed on
// as flags they would come before ours and be overridden.
func (p Params) userFiles(dir string) (extra []string, files []File, err error) {
	for _, arg := range p.ExtraArguments {
		name, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		switch name {
		case "config":
			content, err := p.read(value)
			if err != nil {
				return nil, nil, fmt.Errorf("kubelet-arg %s: %w", name, err)
			}
			files = append(files, File{path.Join(dir, "10-cli-config.conf"), content})
		case "config-dir":
			names, err := fs.Glob(p.Files, strings.TrimPrefix(path.Clean(value), "/")+"/*.conf")
			if err != nil {
				return nil, nil, fmt.Errorf("kubelet-arg %s: %w", name, err)
			}
			for _, name := range names {
				content, err := p.read("/" + name)
				if err != nil {
					return nil, nil, fmt.Errorf("kubelet-arg config-dir: %w", err)
				}
				files = append(files, File{path.Join(dir, "20-cli-config-dir", path.Base(name)), content})
			}
		default:
			extra = append(extra, arg)
		}
	}
	// Stable, and the last of a path alone: as with any flag, the later of two wins.
	slices.SortStableFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	var last []File
	for i, f := range files {
		if i+1 == len(files) || files[i+1].Path != f.Path {
			last = append(last, f)
		}
	}
	return extra, last, nil
}

func (p Params) read(file string) ([]byte, error) {
	content, err := fs.ReadFile(p.Files, strings.TrimPrefix(path.Clean(file), "/"))
	if err != nil {
		return nil, err
	}
	var any map[string]any
	if err := yaml.Unmarshal(content, &any); err != nil {
		return nil, fmt.Errorf("parse %s: %w", file, err)
	}
	return content, nil
}

// duration is written as the API's Duration is.
type duration time.Duration

// MarshalJSON implements json.Marshaler.
func (d duration) MarshalJSON() ([]byte, error) {
	return []byte(`"` + time.Duration(d).String() + `"`), nil
}
