package server

import "keelson/node/sequence"

// steps is the whole start of a server: what is done, and after what. A step begins as soon as those that it names
// have ended, so independent ones run side by side; nothing waits for time to pass.
//
// Only the control plane's own pods are there before kube-apiserver serves: what they would compete with for
// processors has nothing to do until then. The kubelet's way to kube-apiserver is a gate that holds its connections
// until that moment (package gate).
func (s *Server) steps() []sequence.Step {
	return []sequence.Step{
		{Name: "settings", Run: s.resolve},
		{Name: "folders", Run: s.makeFolders},
		{Name: "system images", Run: s.loadImages},
		{Name: "reset", After: []string{"settings", "folders"}, Run: s.settleReset},
		{Name: "cluster", After: []string{"reset", "system images"}, Run: s.joinCluster},
		{Name: "gate", After: []string{"settings"}, Run: s.openGate},
		{Name: "containerd", After: []string{"folders", "system images"}, Run: s.startContainerd},
		{Name: "secrets", After: []string{"cluster"}, Run: s.ensureSecrets},
		{Name: "certificates", After: []string{"cluster"}, Run: s.ensureCertificates},
		{Name: "token files", After: []string{"secrets", "certificates"}, Run: s.writeTokens},
		{Name: "stale pods", After: []string{"reset"}, Run: s.removeStalePods},
		{Name: "etcd member", After: []string{"certificates"}, Run: s.startMember},
		{Name: "etcd pod", After: []string{"etcd member", "certificates", "system images", "stale pods"}, Run: s.writeEtcd},
		{Name: "apiserver pod", After: []string{"etcd member", "certificates", "secrets", "system images", "stale pods"}, Run: s.writeFirstAPIServer},
		{Name: "kubelet", After: []string{"gate", "certificates", "containerd", "etcd pod", "apiserver pod"}, Run: s.startKubelet},
		{Name: "listener", After: []string{"token files"}, Run: s.startListener},
		{Name: "nodes", After: []string{"settings", "folders"}, Run: s.prepareNodes},
		{Name: "manifests", After: []string{"settings", "folders", "system images"}, Run: s.writeManifests},
		{Name: "resets", After: []string{"kubelet"}, Run: s.watchReset},
		{Name: "etcd", After: []string{"kubelet"}, Run: s.awaitEtcd},
		{Name: "membership", After: []string{"etcd"}, Run: s.watchMember},
		{Name: "joined apiserver pod", After: []string{"etcd"}, Run: s.writeJoinedAPIServer},
		{Name: "token", After: []string{"etcd", "token files", "listener", "nodes"}, Run: s.startRotation},
		{Name: "bootstrap record", After: []string{"token"}, Run: s.saveBootstrap},
		{Name: "joining", After: []string{"bootstrap record"}, Run: s.openListener},
		{Name: "record", After: []string{"joining", "apiserver pod"}, Run: s.followRecord},
		{Name: "apiserver", After: []string{"kubelet", "joined apiserver pod"}, Run: s.awaitAPIServer},
		{Name: "controllers", After: []string{"apiserver"}, Run: s.writeControllers},
		{Name: "add-ons", After: []string{"apiserver", "manifests"}, Run: s.startAddons},
		{Name: "cloud controller", After: []string{"add-ons"}, Run: s.writeCloudController},
		{Name: "reset's end", After: []string{"apiserver"}, Run: s.finishReset},
		{Name: "known nodes", After: []string{"reset's end", "nodes"}, Run: s.followCluster},
		{Name: "members", After: []string{"apiserver", "etcd"}, Run: s.followNodes},
		{Name: "endpoints", After: []string{"apiserver", "etcd"}, Run: s.watchEndpoints},
		{Name: "snapshots", After: []string{"apiserver", "joining"}, Run: s.startSnapshots},
		{Name: "etcd care", After: []string{"joining"}, Run: s.careForEtcd},
		{Name: "node object", After: []string{"apiserver"}, Run: s.markNode},
		{Name: "node ready", After: []string{"node object"}, Run: s.awaitNode},
		{Name: "system pods", After: []string{"node ready", "controllers", "cloud controller", "add-ons"}, Run: s.awaitSystemPods},
		{Name: "renewal", After: []string{"apiserver", "joining"}, Run: s.startRenewal},
	}
}
