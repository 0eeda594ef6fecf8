package config

// Status says what this version does with a key.
type Status int

// The two things that can happen to a known key.
const (
	Honoured Status = iota
	Refused
)

// Key is one key of RKE2's config.yaml, as `rke2 server --help` and RKE2's server configuration reference list them.
type Key struct {
	Name    string
	Status  Status
	Doc     string   // what an honoured key sets
	Reason  string   // why a refused key is refused
	Neutral []string // values of a refused key that ask for what happens anyway; they are accepted

	split bool               // a value may hold several, with commas between them
	check func(string) error // judges one value
	bind  func(*Config) any  // the field of an honoured key
}

// Keys returns every key that RKE2's server takes, in the order of its manual.
func Keys() []Key {
	return append(honoured(), refused()...)
}

func honoured() []Key {
	keys := []Key{
		{Name: "debug", Doc: "debug messages in node's log", bind: func(c *Config) any { return &c.Debug }},
		{Name: "data-dir", Doc: "folder of all state", check: absolute, bind: func(c *Config) any { return &c.DataDir }},

		{Name: "advertise-address", Doc: "address that kube-apiserver tells the cluster", bind: func(c *Config) any { return &c.AdvertiseAddress }},
		{Name: "egress-selector-mode", Doc: "how kube-apiserver reaches kubelets: agent (through their tunnels) or disabled (directly)", check: egress, bind: func(c *Config) any { return &c.EgressSelectorMode }},
		{Name: "tls-san", Doc: "more names and addresses in the serving certificates", split: true, check: san, bind: func(c *Config) any { return &c.TLSSAN }},

		{Name: "cluster-cidr", Doc: "networks of pods", split: true, bind: func(c *Config) any { return &c.ClusterCIDR }},
		{Name: "service-cidr", Doc: "networks of services", split: true, bind: func(c *Config) any { return &c.ServiceCIDR }},
		{Name: "service-node-port-range", Doc: "ports for services of type NodePort", bind: func(c *Config) any { return &c.ServiceNodePortRange }},
		{Name: "cluster-dns", Doc: "address of the cluster's DNS, inside service-cidr", split: true, bind: func(c *Config) any { return &c.ClusterDNS }},
		{Name: "cluster-domain", Doc: "DNS domain of the cluster", check: dnsName, bind: func(c *Config) any { return &c.ClusterDomain }},
		{Name: "cni", Doc: "pod network: flannel or none", split: true, check: cni, bind: func(c *Config) any { return &c.CNI }},
		{Name: "flannel-backend", Doc: "how flannel carries what pods send to other nodes: vxlan, wireguard-native (encrypted) or host-gw (plain routes, nodes of one Ethernet); k3s's key", check: flannelBackend, bind: func(c *Config) any { return &c.FlannelBackend }},

		{Name: "write-kubeconfig", Doc: "path of the administrator's kubeconfig", check: absolute, bind: func(c *Config) any { return &c.WriteKubeconfig }},
		{Name: "write-kubeconfig-mode", Doc: "mode of that file, octal", bind: func(c *Config) any { return &c.WriteKubeconfigMode }},

		{Name: "token", Doc: "secret that servers and agents join with", check: oneLine, bind: func(c *Config) any { return &c.Token }},
		{Name: "token-file", Doc: "file that holds the token", check: absolute, bind: func(c *Config) any { return &c.tokenFile }},
		{Name: "token-recover", Doc: "make token the cluster's, whose own is lost, by the keys of the authorities on this server's disk; once", bind: func(c *Config) any { return &c.TokenRecover }},
		{Name: "token-recover-unsealed", Doc: "do so where nothing tells whether this disk is the newest", bind: func(c *Config) any { return &c.TokenRecoverUnsealed }},
		{Name: "agent-token", Doc: "secret that only agents join with", check: oneLine, bind: func(c *Config) any { return &c.AgentToken }},
		{Name: "agent-token-file", Doc: "file that holds the agent token", check: absolute, bind: func(c *Config) any { return &c.agentTokenFile }},

		{Name: "server", Doc: "server of the cluster to join, https://host:9345", check: serverURL, bind: func(c *Config) any { return &c.Server }},
		{Name: "server-alternatives", Doc: "other servers of that cluster, tried in their order where `server` does not answer; a list for all machines may name this one", check: serverURL, bind: func(c *Config) any { return &c.ServerAlternatives }},
		{Name: "require-token-ca-hash", Doc: "join only with a token that pins the cluster's CA", bind: func(c *Config) any { return &c.RequireTokenCAHash }},

		{Name: "node-name", Doc: "name of the node", check: dnsName, bind: func(c *Config) any { return &c.NodeName }},
		{Name: "node-ip", Doc: "addresses of the node, one of each family", split: true, bind: func(c *Config) any { return &c.NodeIP }},
		{Name: "node-external-ip", Doc: "external addresses of the node", split: true, bind: func(c *Config) any { return &c.NodeExternalIP }},
		{Name: "node-label", Doc: "labels of the node, key=value", check: label, bind: func(c *Config) any { return &c.NodeLabels }},
		{Name: "node-taint", Doc: "taints at first registration, key=value:effect", check: taint, bind: func(c *Config) any { return &c.NodeTaints }},
		{Name: "resolv-conf", Doc: "resolv.conf for the kubelet", check: absolute, bind: func(c *Config) any { return &c.ResolvConf }},
		{Name: "protect-kernel-defaults", Doc: "kubelet stops where kernel settings differ from its own", bind: func(c *Config) any { return &c.ProtectKernelDefaults }},

		{Name: "disable", Doc: "packaged add-ons to leave out, such as rke2-coredns", split: true, check: addon, bind: func(c *Config) any { return &c.Disable }},
		{Name: "disable-etcd", Doc: "no etcd: the server uses that of the others", bind: func(c *Config) any { return &c.DisableEtcd }},
		{Name: "disable-apiserver", Doc: "no kube-apiserver: the server has etcd alone", bind: func(c *Config) any { return &c.DisableAPIServer }},
		{Name: "disable-controller-manager", Doc: "no kube-controller-manager", bind: func(c *Config) any { return &c.DisableControllerManager }},
		{Name: "disable-scheduler", Doc: "no kube-scheduler", bind: func(c *Config) any { return &c.DisableScheduler }},
		{Name: "disable-cloud-controller", Doc: "no cloud-controller-manager", bind: func(c *Config) any { return &c.DisableCloudController }},
		{Name: "disable-kube-proxy", Doc: "no kube-proxy", bind: func(c *Config) any { return &c.DisableKubeProxy }},
		{Name: "control-plane-resource-requests", Doc: "requests, such as kube-apiserver-cpu=500m", split: true, check: resource, bind: func(c *Config) any { return &c.ControlPlaneResourceRequests }},
		{Name: "control-plane-resource-limits", Doc: "limits, such as etcd-memory=1Gi", split: true, check: resource, bind: func(c *Config) any { return &c.ControlPlaneResourceLimits }},
		{Name: "control-plane-probe-configuration", Doc: "probe timings, such as etcd-startup-failure-threshold=30", split: true, check: probe, bind: func(c *Config) any { return &c.ControlPlaneProbes }},
		{Name: "etcd-expose-metrics", Doc: "etcd metrics on the node address too", bind: func(c *Config) any { return &c.EtcdExposeMetrics }},

		{Name: "cluster-reset", Doc: "make a cluster of this one server of its own data, or of a snapshot; once", bind: func(c *Config) any { return &c.ClusterReset }},
		{Name: "cluster-reset-restore-path", Doc: "the snapshot: a file, a name in etcd-snapshot-dir, or with etcd-s3 an object", check: oneLine, bind: func(c *Config) any { return &c.ClusterResetRestorePath }},
		{Name: "etcd-disable-snapshots", Doc: "no snapshots of etcd by schedule", bind: func(c *Config) any { return &c.DisableSnapshots }},
		{Name: "etcd-snapshot-name", Doc: "what names of snapshots begin with", check: addon, bind: func(c *Config) any { return &c.SnapshotName }},
		{Name: "etcd-snapshot-schedule-cron", Doc: "when snapshots are taken, as cron writes it", check: oneLine, bind: func(c *Config) any { return &c.SnapshotSchedule }},
		{Name: "etcd-snapshot-retention", Doc: "how many of this node's snapshots stay; 0 keeps all", bind: func(c *Config) any { return &c.SnapshotRetention }},
		{Name: "etcd-snapshot-dir", Doc: "folder of snapshots, which must exist", check: absolute, bind: func(c *Config) any { return &c.SnapshotDir }},
		{Name: "etcd-snapshot-compress", Doc: "zip snapshots", bind: func(c *Config) any { return &c.SnapshotCompress }},
		{Name: "etcd-s3", Doc: "snapshots go to an object store as well", bind: func(c *Config) any { return &c.S3.Enabled }},
		{Name: "etcd-s3-endpoint", Doc: "host of the object store", check: oneLine, bind: func(c *Config) any { return &c.S3.Endpoint }},
		{Name: "etcd-s3-endpoint-ca", Doc: "file with the authority of that host", check: absolute, bind: func(c *Config) any { return &c.S3.EndpointCA }},
		{Name: "etcd-s3-skip-ssl-verify", Doc: "take any certificate of that host", bind: func(c *Config) any { return &c.S3.SkipSSLVerify }},
		{Name: "etcd-s3-access-key", Doc: "access key", check: oneLine, bind: func(c *Config) any { return &c.S3.AccessKey }},
		{Name: "etcd-s3-secret-key", Doc: "secret key", check: oneLine, bind: func(c *Config) any { return &c.S3.SecretKey }},
		{Name: "etcd-s3-session-token", Doc: "session token", check: oneLine, bind: func(c *Config) any { return &c.S3.SessionToken }},
		{Name: "etcd-s3-bucket", Doc: "bucket, which must exist", check: oneLine, bind: func(c *Config) any { return &c.S3.Bucket }},
		{Name: "etcd-s3-bucket-lookup-type", Doc: "auto, dns or path", check: bucketLookup, bind: func(c *Config) any { return &c.S3.BucketLookup }},
		{Name: "etcd-s3-region", Doc: "region", check: oneLine, bind: func(c *Config) any { return &c.S3.Region }},
		{Name: "etcd-s3-folder", Doc: "folder in the bucket", check: oneLine, bind: func(c *Config) any { return &c.S3.Folder }},
		{Name: "etcd-s3-proxy", Doc: "proxy for requests to the object store", check: oneLine, bind: func(c *Config) any { return &c.S3.Proxy }},
		{Name: "etcd-s3-config-secret", Doc: "Secret of kube-system with what is not set here", check: dnsName, bind: func(c *Config) any { return &c.S3.ConfigSecret }},
		{Name: "etcd-s3-insecure", Doc: "http instead of https", bind: func(c *Config) any { return &c.S3.Insecure }},
		{Name: "etcd-s3-timeout", Doc: "bound of an operation on the object store", check: duration, bind: func(c *Config) any { return &c.S3.Timeout }},
		{Name: "etcd-s3-retention", Doc: "how many of this node's objects stay; 0 keeps all", bind: func(c *Config) any { return &c.S3.Retention }},

		{Name: "supervisor-metrics", Doc: "serve the supervisor's metrics at :9345/metrics, to whom RBAC lets get that path", bind: func(c *Config) any { return &c.SupervisorMetrics }},
		{Name: "enable-pprof", Doc: "serve profiles of the supervisor at :9345/debug/pprof/, to whom RBAC lets get that path", bind: func(c *Config) any { return &c.EnablePprof }},

		{Name: "private-registry", Doc: "path of registries.yaml", check: absolute, bind: func(c *Config) any { return &c.PrivateRegistry }},
		{Name: "embedded-registry", Doc: "nodes share images of the registries that registries.yaml has mirrors for; agents follow the servers", bind: func(c *Config) any { return &c.EmbeddedRegistry }},
		{Name: "disable-default-registry-endpoint", Doc: "with a mirror set, never fall back to the registry itself", bind: func(c *Config) any { return &c.DisableDefaultRegistryEndpoint }},

		{Name: "secrets-encryption-provider", Doc: "aescbc or secretbox", check: provider, bind: func(c *Config) any { return &c.SecretsEncryptionProvider }},
		{Name: "audit-policy-file", Doc: "audit policy for kube-apiserver", check: absolute, bind: func(c *Config) any { return &c.AuditPolicyFile }},
		{Name: "pod-security-admission-config-file", Doc: "admission configuration in place of rke2-pss.yaml", check: absolute, bind: func(c *Config) any { return &c.PodSecurityAdmissionConfigFile }},

		{Name: "kubelet-arg", Doc: "flags for kubelet, name=value", check: arg, bind: func(c *Config) any { return &c.KubeletArgs }},
	}
	return append(keys, componentKeys()...)
}

// componentKeys returns the three keys of each static pod. The flags of the cloud controller go by another name
// than its mounts and variables: that is RKE2's, not ours.
func componentKeys() []Key {
	var keys []Key
	for _, of := range []struct {
		arg, name string
		field     func(*Config) *Component
	}{
		{"kube-apiserver", "kube-apiserver", func(c *Config) *Component { return &c.APIServer }},
		{"kube-controller-manager", "kube-controller-manager", func(c *Config) *Component { return &c.ControllerManager }},
		{"kube-scheduler", "kube-scheduler", func(c *Config) *Component { return &c.Scheduler }},
		{"kube-cloud-controller-manager", "cloud-controller-manager", func(c *Config) *Component { return &c.CloudController }},
		{"kube-proxy", "kube-proxy", func(c *Config) *Component { return &c.KubeProxy }},
		{"etcd", "etcd", func(c *Config) *Component { return &c.Etcd }},
	} {
		keys = append(keys,
			Key{Name: of.arg + "-arg", Doc: "flags for " + of.name + ", name=value", check: arg, bind: func(c *Config) any { return &of.field(c).Args }},
			Key{Name: of.name + "-extra-env", Doc: "variables for " + of.name + ", NAME=value", check: variable, bind: func(c *Config) any { return &of.field(c).ExtraEnv }},
			Key{Name: of.name + "-extra-mount", Doc: "mounts for " + of.name + ", source:destination[:ro]", check: mount, bind: func(c *Config) any { return &of.field(c).ExtraMount }},
		)
	}
	return keys
}
