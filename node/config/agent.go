package config

import "slices"

// ForServers tells whether only servers use a key. Users of RKE2 share files between the roles, so an agent passes such
// keys over, whatever they say, and tells of them.
func ForServers(name string) bool {
	return slices.ContainsFunc(Keys(), func(k Key) bool { return k.Name == name }) && !slices.Contains(agentKeys(), name)
}

// agentKeys are the keys that an agent uses, or refuses because it cannot. cni is among them: a server of RKE2 does not
// tell its agents what it is.
func agentKeys() []string {
	return []string{
		"debug", "data-dir", "token", "token-file", "server", "server-alternatives", "require-token-ca-hash",
		"node-name", "node-ip", "node-external-ip", "node-label", "node-taint", "resolv-conf", "protect-kernel-defaults",
		"cni", "disable-kube-proxy", "kube-proxy-arg", "kube-proxy-extra-env", "kube-proxy-extra-mount", "kubelet-arg",
		"control-plane-resource-requests", "control-plane-resource-limits", "control-plane-probe-configuration",
		"private-registry", "disable-default-registry-endpoint",

		"cloud-provider-name", "cloud-provider-config", "profile", "selinux", "with-node-id",
		"image-credential-provider-bin-dir", "image-credential-provider-config", "lb-server-port",
		"container-runtime-endpoint", "default-runtime", "nonroot-devices", "snapshotter", "kubelet-path",
		"system-default-registry", "airgap-extra-registry", "kube-proxy-image", "pause-image", "runtime-image",
		"log", "alsologtostderr", "v", "vmodule",
	}
}

// LoadAgent is Load for an agent. The warnings tell of keys that only servers use.
func LoadAgent(path string) (c Config, warnings []Problem, err error) {
	all, problems, err := read(path)
	if err != nil {
		return Config{}, nil, err
	}
	warn := func(p Problem) {
		if !slices.ContainsFunc(warnings, func(w Problem) bool { return w.Key == p.Key }) {
			p.Message = "only servers use it; this machine is an agent and passes it over"
			warnings = append(warnings, p)
		}
	}
	for _, e := range all {
		if ForServers(e.key) {
			warn(Problem{File: e.at.file, Line: e.at.line, Key: e.key})
		}
	}
	all = slices.DeleteFunc(all, func(e entry) bool { return ForServers(e.key) })
	problems = slices.DeleteFunc(problems, func(p Problem) bool {
		if ForServers(p.Key) {
			warn(p)
		}
		return ForServers(p.Key)
	})
	c, err = build(all, problems)
	return c, warnings, err
}

// CheckAgent judges what an agent's settings must hold; what only its cluster can tell is left to Resolve. The error is
// Problems.
func (c Config) CheckAgent() error {
	var problems Problems
	if c.Server == "" {
		problems = append(problems, c.problem("server", "is not set; an agent needs the address of a server of its cluster, such as https://10.0.0.1:9345"))
	}
	if c.Token == "" {
		problems = append(problems, c.problem("token", "is not set; copy the token from /var/lib/rancher/rke2/server/token or node-token of a server"))
	}
	return problems.err()
}
