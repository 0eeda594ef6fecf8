package server

import "keelson/node/sequence"

// steps is the whole start of a server: what is done, and after what. A step begins as soon as those that it names
// have ended, so independent ones run side by side; nothing waits for time to pass.
//
// Only the control plane's own pods are there before kube-apiserver serves: what they would compete with for
// processors has nothing to do until then. The kubelet's way to kube-apiserver is a gate that holds its connections
// until that moment (package gate).
//
// A server may be without etcd or without kube-apiserver. Then it has a load balancer before the others' in its place,
// and the steps of the part that it lacks are skipped.
func (s *Server) steps() []sequence.Step {
	noEtcd, noAPI := s.cfg.Settings.DisableEtcd, s.cfg.Settings.DisableAPIServer
	return []sequence.Step{
		{Name: "settings", Run: s.resolve},
		{Name: "folders", Run: s.makeFolders},
		{Name: "system images", Run: s.loadImages},
		{Name: "disk space", After: []string{"settings", "folders"}, Run: s.watchDisk},
		{Name: "roles", After: []string{"settings", "folders"}, Run: s.settleRoles},
		{Name: "reset", After: []string{"roles"}, Skip: noEtcd, Run: s.settleReset},
		{Name: "cluster", After: []string{"reset", "system images"}, Run: s.joinCluster},
		{Name: "gate", After: []string{"settings"}, Skip: noAPI, Run: s.openGate},
		{Name: "balancer of kube-apiservers", After: []string{"roles"}, Skip: !noAPI, Run: s.openAPIBalancer},
		{Name: "containerd", After: []string{"folders", "system images"}, Run: s.startContainerd},
		{Name: "secrets", After: []string{"cluster"}, Run: s.ensureSecrets},
		{Name: "certificates", After: []string{"cluster"}, Run: s.ensureCertificates},
		{Name: "token files", After: []string{"secrets", "certificates"}, Run: s.writeTokens},
		{Name: "stale pods", After: []string{"reset"}, Run: s.removeStalePods},
		{Name: "balancer of etcd", After: []string{"certificates"}, Skip: !noEtcd, Run: s.openEtcdBalancer},
		{Name: "etcd member", After: []string{"certificates"}, Skip: noEtcd, Run: s.startMember},
		{Name: "etcd pod", After: []string{"etcd member", "certificates", "system images", "stale pods"}, Skip: noEtcd, Run: s.writeEtcd},
		{Name: "apiserver pod", After: []string{"etcd member", "certificates", "secrets", "system images", "stale pods"}, Skip: noAPI, Run: s.writeFirstAPIServer},
		{Name: "kubelet", After: []string{"gate", "balancer of kube-apiservers", "balancer of etcd", "certificates", "containerd", "etcd pod", "apiserver pod"}, Run: s.startKubelet},
		{Name: "listener", After: []string{"token files"}, Run: s.startListener},
		{Name: "nodes", After: []string{"settings", "folders"}, Run: s.prepareNodes},
		{Name: "manifests", After: []string{"settings", "folders", "system images"}, Skip: noAPI, Run: s.writeManifests},
		{Name: "resets", After: []string{"kubelet"}, Skip: noEtcd, Run: s.watchReset},
		{Name: "others' etcd", After: []string{"balancer of etcd"}, Skip: !noEtcd, Run: s.awaitOthersEtcd},
		{Name: "etcd", After: []string{"kubelet", "others' etcd"}, Skip: noEtcd, Run: s.awaitEtcd},
		{Name: "others' kube-apiservers", After: []string{"etcd", "balancer of kube-apiservers"}, Skip: !noAPI, Run: s.followAPIServers},
		{Name: "membership", After: []string{"etcd"}, Skip: noEtcd, Run: s.watchMember},
		{Name: "token", After: []string{"etcd", "token files", "listener", "nodes"}, Run: s.startRotation},
		{Name: "bootstrap record", After: []string{"token"}, Run: s.saveBootstrap},
		{Name: "networks", After: []string{"bootstrap record"}, Run: s.rememberNetworks},
		{Name: "joined apiserver pod", After: []string{"bootstrap record"}, Skip: noAPI, Run: s.writeJoinedAPIServer},
		{Name: "joining", After: []string{"bootstrap record"}, Run: s.openListener},
		{Name: "record", After: []string{"joining", "apiserver pod"}, Run: s.followRecord},
		{Name: "apiserver", After: []string{"kubelet", "joined apiserver pod", "others' kube-apiservers"}, Run: s.awaitAPIServer},
		{Name: "node address", After: []string{"apiserver"}, Run: s.readdress},
		{Name: "controllers", After: []string{"node address"}, Run: s.writeControllers},
		{Name: "add-ons", After: []string{"apiserver", "manifests"}, Skip: noAPI, Run: s.startAddons},
		{Name: "charts", After: []string{"apiserver", "etcd", "containerd"}, Skip: noAPI, Run: s.startCharts},
		{Name: "cloud controller", After: []string{"add-ons"}, Skip: noAPI, Run: s.writeCloudController},
		{Name: "reset's end", After: []string{"apiserver"}, Skip: noEtcd, Run: s.finishReset},
		{Name: "known nodes", After: []string{"reset's end", "nodes"}, Run: s.followCluster},
		{Name: "members", After: []string{"apiserver", "etcd"}, Skip: noEtcd || noAPI, Run: s.followNodes},
		{Name: "members alone", After: []string{"etcd"}, Skip: !noAPI, Run: s.controlMembers},
		{Name: "endpoints", After: []string{"apiserver", "etcd"}, Skip: noAPI, Run: s.watchEndpoints},
		{Name: "snapshots", After: []string{"apiserver", "joining"}, Skip: noEtcd, Run: s.startSnapshots},
		{Name: "telemetry", After: []string{"apiserver", "joining"}, Run: s.startTelemetry},
		{Name: "registry", After: []string{"apiserver", "joining", "containerd"}, Skip: !s.cfg.Settings.EmbeddedRegistry, Run: s.startRegistry},
		{Name: "etcd care", After: []string{"joining"}, Skip: noEtcd, Run: s.careForEtcd},
		{Name: "encryption", After: []string{"apiserver", "joining"}, Run: s.startEncryption},
		{Name: "node object", After: []string{"apiserver"}, Run: s.markNode},
		{Name: "node events", After: []string{"node object"}, Run: s.tellEvents},
		{Name: "node ready", After: []string{"node object"}, Run: s.awaitNode},
		{Name: "system pods", After: []string{"node ready", "controllers", "cloud controller", "add-ons"}, Run: s.awaitSystemPods},
		{Name: "renewal", After: []string{"apiserver", "joining"}, Run: s.startRenewal},
	}
}
