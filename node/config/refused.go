package config

// refused lists the keys that RKE2 has and this version cannot honour, with the reason a user reads.
func refused() []Key {
	const (
		datastore = "only the etcd on this node is supported as datastore"
		images    = "system images are part of the verified root and cannot be replaced one by one"
		runtime   = "containerd and kubelet are part of the verified root"
		plugins   = "the machine runs no programs from outside the verified root"
		charts    = "the image has no ingress controller; a HelmChart of your own can install one"
		cloud     = "cloud provider integrations come in a later version"
		logging   = "logs have fixed places and bounded size; debug is the one setting"
	)
	keys := []Key{
		{Name: "bind-address", Reason: "the node's own clients and probes reach kube-apiserver on loopback, so it listens on every address", Neutral: []string{"", "0.0.0.0"}},
		{Name: "tls-san-security", Reason: "serving certificates carry configured names only, which is the safe setting", Neutral: []string{"true"}},
		{Name: "servicelb-namespace", Reason: "the service load balancer comes in a later version", Neutral: []string{"kube-system"}},
		{Name: "enable-servicelb", Reason: "the service load balancer comes in a later version", Neutral: []string{"false"}},
		{Name: "ingress-controller", Reason: charts, Neutral: []string{"", "none"}},
		{Name: "write-kubeconfig-group", Reason: "the machine has no groups of people", Neutral: []string{""}},
		{Name: "helm-job-image", Reason: "charts are applied without a job", Neutral: []string{""}},
		{Name: "disable-agent", Reason: "a server of this version always runs a kubelet", Neutral: []string{"false"}},
		{Name: "secrets-encryption", Reason: "secrets are always encrypted at rest", Neutral: []string{"true"}},
		{Name: "cloud-provider-name", Reason: cloud, Neutral: []string{""}},
		{Name: "cloud-provider-config", Reason: cloud, Neutral: []string{""}},
		{Name: "profile", Reason: "the CIS profile comes in a later version", Neutral: []string{""}},
		{Name: "selinux", Reason: "the kernel runs without an SELinux policy", Neutral: []string{"false"}},
		{Name: "with-node-id", Reason: "node names with a generated suffix come in a later version", Neutral: []string{"false"}},
		{Name: "image-credential-provider-bin-dir", Reason: plugins, Neutral: []string{""}},
		{Name: "image-credential-provider-config", Reason: plugins, Neutral: []string{""}},
		{Name: "lb-server-port", Reason: "a single server needs no load balancer for its clients", Neutral: []string{"6444"}},
		{Name: "container-runtime-endpoint", Reason: runtime, Neutral: []string{""}},
		{Name: "default-runtime", Reason: runtime, Neutral: []string{"", "runc"}},
		{Name: "nonroot-devices", Reason: runtime, Neutral: []string{"false"}},
		{Name: "snapshotter", Reason: runtime, Neutral: []string{"", "overlayfs"}},
		{Name: "kubelet-path", Reason: runtime, Neutral: []string{""}},
		{Name: "system-default-registry", Reason: "system images are part of the verified root and never pulled", Neutral: []string{""}},
		{Name: "airgap-extra-registry", Reason: images, Neutral: []string{""}},
		{Name: "log", Reason: logging, Neutral: []string{""}},
		{Name: "alsologtostderr", Reason: logging, Neutral: []string{"false"}},
		{Name: "v", Reason: logging, Neutral: []string{"0"}},
		{Name: "vmodule", Reason: logging, Neutral: []string{""}},
	}
	keys = append(keys, Key{Name: "etcd-snapshot-reconcile-interval", Reason: "snapshots and their objects are compared every ten minutes", Neutral: []string{"", "10m", "10m0s"}})
	for _, name := range []string{"endpoint", "cafile", "certfile", "keyfile"} {
		keys = append(keys, Key{Name: "datastore-" + name, Reason: datastore, Neutral: []string{""}})
	}
	for _, name := range []string{
		"kube-apiserver", "kube-controller-manager", "cloud-controller-manager", "kube-proxy", "kube-scheduler",
		"pause", "runtime", "etcd",
	} {
		keys = append(keys, Key{Name: name + "-image", Reason: images, Neutral: []string{""}})
	}
	for i := range keys {
		keys[i].Status = Refused
	}
	return keys
}

// k3sKeys are keys of k3s that RKE2 leaves out. People copy them over, and "unknown" would not help them.
func k3sKeys() []string {
	return []string{
		"advertise-port", "cluster-init", "cluster-secret", "default-local-storage-path", "disable-helm-controller",
		"disable-network-policy", "docker", "flannel-cni-conf", "flannel-conf", "flannel-external-ip",
		"flannel-iface", "flannel-ipv6-masq", "https-listen-port", "no-deploy", "no-flannel", "prefer-bundled-bin",
		"rootless", "vpn-auth", "vpn-auth-file",
	}
}
