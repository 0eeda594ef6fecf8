package agent

import "keelson/node/sequence"

// steps is the whole start of an agent: what is done, and after what. A step begins as soon as those that it names have
// ended, so independent ones run side by side: containerd comes up while the cluster is still being looked for.
func (a *Agent) steps() []sequence.Step {
	return []sequence.Step{
		{Name: "settings", Run: a.lookAtHost},
		{Name: "folders", Run: a.makeFolders},
		{Name: "system images", Run: a.loadImages},
		{Name: "disk space", After: []string{"settings", "folders"}, Run: a.watchDisk},
		{Name: "containerd", After: []string{"folders", "system images"}, Run: a.startContainerd},
		{Name: "node password", After: []string{"folders"}, Run: a.ensurePassword},
		{Name: "load balancers", After: []string{"folders"}, Run: a.startBalancers},
		{Name: "trust", After: []string{"settings", "load balancers"}, Run: a.findCluster},
		{Name: "cluster", After: []string{"trust"}, Run: a.readCluster},
		{Name: "certificates", After: []string{"cluster", "node password"}, Run: a.obtain},
		{Name: "kubeconfigs", After: []string{"load balancers"}, Run: a.writeKubeconfigs},
		{Name: "servers", After: []string{"certificates", "kubeconfigs"}, Run: a.followServers},
		{Name: "versions", After: []string{"certificates", "kubeconfigs", "system images"}, Run: a.checkVersion},
		{Name: "registry", After: []string{"certificates", "kubeconfigs", "containerd"}, Run: a.startRegistry},
		{Name: "kubelet", After: []string{"versions", "registry"}, Run: a.startKubelet},
		{Name: "gate", After: []string{"certificates"}, Run: a.awaitCluster},
		{Name: "node address", After: []string{"gate", "kubeconfigs"}, Run: a.readdress},
		{Name: "kube-proxy", After: []string{"node address", "kubelet"}, Run: a.writeProxy},
		{Name: "node object", After: []string{"kubelet"}, Run: a.markNode},
		{Name: "node events", After: []string{"node object"}, Run: a.tellEvents},
		{Name: "node ready", After: []string{"node object"}, Run: a.awaitNode},
		{Name: "renewal", After: []string{"kube-proxy", "servers"}, Run: a.startRenewal},
	}
}
