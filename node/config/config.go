// Package config is the node's settings: the keys of RKE2's config.yaml, read strictly.
//
// It takes /etc/rancher/rke2/config.yaml and config.yaml.d/*.yaml (or, for init, the rke2 section of user-data as
// YAML nodes) and gives a typed Config, or Problems that name file, line, key and what to do. A key is honoured,
// refused with a reason, or unknown with a suggestion; none is ignored in silence. Keys lists them all, and
// KEYS.md beside this file is printed from that list.
//
// The package never looks at the machine: addresses and host name come in through Resolve's Host. It is a leaf (the
// standard library and a YAML parser), because PID 1 checks user-data with it. node's start-up list uses the result.
package config

import (
	"io/fs"
	"log/slog"
	"net/netip"
	"strconv"
)

// Secret is text that must not reach a log, a message or a document. Formatting it in any way prints "redacted";
// Reveal gives the text.
type Secret string

// Reveal returns the secret text, for the few places that hash or compare it.
func (s Secret) Reveal() string { return string(s) }

// String implements fmt.Stringer.
func (Secret) String() string { return "redacted" }

// GoString implements fmt.GoStringer, for %#v.
func (Secret) GoString() string { return "redacted" }

// MarshalText implements encoding.TextMarshaler, which JSON and YAML encoders ask.
func (Secret) MarshalText() ([]byte, error) { return []byte("redacted"), nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue("redacted") }

// Component is what a user can set for one static pod.
type Component struct {
	Args       []string // flags without the leading dashes: "v=2"; "name+=x" appends, "name-=x" prepends
	ExtraEnv   []string // "NAME=value"
	ExtraMount []string // "source:destination[:ro|rw[:hostPathType]]"
}

// S3 is an object store that snapshots also go to.
type S3 struct {
	Enabled       bool   // etcd-s3
	Endpoint      string // etcd-s3-endpoint; empty: Amazon's
	EndpointCA    string // etcd-s3-endpoint-ca: a file
	SkipSSLVerify bool   // etcd-s3-skip-ssl-verify
	AccessKey     string // etcd-s3-access-key
	SecretKey     Secret // etcd-s3-secret-key
	SessionToken  Secret // etcd-s3-session-token
	Bucket        string // etcd-s3-bucket
	BucketLookup  string // etcd-s3-bucket-lookup-type
	Region        string // etcd-s3-region
	Folder        string // etcd-s3-folder
	Proxy         string // etcd-s3-proxy
	ConfigSecret  string // etcd-s3-config-secret
	Insecure      bool   // etcd-s3-insecure: http
	Timeout       string // etcd-s3-timeout, as Go writes durations
	Retention     int    // etcd-s3-retention
}

// PortRange is a closed range of ports, written "first-last".
type PortRange struct{ First, Last uint16 }

// String writes the range as kube-apiserver's --service-node-port-range takes it.
func (r PortRange) String() string {
	return strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last))
}

// Names of CNI plug-ins that this version can install.
const (
	CNIFlannel = "flannel"
	CNINone    = "none"
)

// How flannel carries what pods of different nodes send each other, by k3s's names: in VXLAN, encrypted by WireGuard in
// the kernel, or as it is, along routes, between nodes of one Ethernet.
const (
	FlannelVXLAN     = "vxlan"
	FlannelWireGuard = "wireguard-native"
	FlannelHostGW    = "host-gw"
)

// How kube-apiserver reaches kubelets: through the tunnels that nodes keep to each server, or on its own.
const (
	EgressAgent    = "agent"
	EgressDisabled = "disabled"
)

// Config is every setting that this version honours. Its field comments give the key. Load fills what the files
// say over Default; Resolve fills what follows from other settings and from the machine.
type Config struct {
	Debug   bool   // debug
	DataDir string // data-dir

	// Cluster.
	Token      Secret // token, or the content of token-file; empty: one is generated
	AgentToken Secret // agent-token, or the content of agent-token-file; empty: the server token serves agents too
	Server     string // server: https://host:port of a server to join; empty: this server begins a cluster
	// ServerAlternatives: server-alternatives: others to join by, where Server does not answer
	ServerAlternatives []string

	RequireTokenCAHash bool // require-token-ca-hash: join with a token that pins the CA, or not at all

	// Listeners.
	AdvertiseAddress netip.Addr // advertise-address; Resolve: first external or node address
	TLSSAN           []string   // tls-san

	EgressSelectorMode string // egress-selector-mode: EgressAgent or EgressDisabled

	// Networking.
	ClusterCIDR          []netip.Prefix // cluster-cidr
	ServiceCIDR          []netip.Prefix // service-cidr
	ServiceNodePortRange PortRange      // service-node-port-range
	ClusterDNS           []netip.Addr   // cluster-dns; Resolve: tenth address of each service-cidr
	ClusterDomain        string         // cluster-domain
	CNI                  string         // cni: CNIFlannel or CNINone
	FlannelBackend       string         // flannel-backend: FlannelVXLAN, FlannelWireGuard or FlannelHostGW

	// Node.
	NodeName              string       // node-name; Resolve: host name
	NodeIP                []netip.Addr // node-ip; Resolve: addresses of the host
	NodeExternalIP        []netip.Addr // node-external-ip
	NodeLabels            []string     // node-label: "key=value"
	NodeTaints            []string     // node-taint: "key[=value]:effect"
	ResolvConf            string       // resolv-conf
	ProtectKernelDefaults bool         // protect-kernel-defaults

	// Files for people.
	WriteKubeconfig     string      // write-kubeconfig
	WriteKubeconfigMode fs.FileMode // write-kubeconfig-mode

	// Components.
	Disable                      []string          // disable: add-ons by name, such as rke2-coredns
	DisableEtcd                  bool              // disable-etcd: this server's part is the control plane
	DisableAPIServer             bool              // disable-apiserver: this server's part is etcd
	DisableControllerManager     bool              // disable-controller-manager
	DisableScheduler             bool              // disable-scheduler
	DisableCloudController       bool              // disable-cloud-controller
	DisableKubeProxy             bool              // disable-kube-proxy
	APIServer                    Component         // kube-apiserver-arg, -extra-env, -extra-mount
	ControllerManager            Component         // kube-controller-manager-...
	Scheduler                    Component         // kube-scheduler-...
	CloudController              Component         // kube-cloud-controller-manager-arg, cloud-controller-manager-extra-...
	KubeProxy                    Component         // kube-proxy-...
	Etcd                         Component         // etcd-...
	KubeletArgs                  []string          // kubelet-arg
	ControlPlaneResourceRequests map[string]string // control-plane-resource-requests: "kube-apiserver-cpu" to "500m"
	ControlPlaneResourceLimits   map[string]string // control-plane-resource-limits
	ControlPlaneProbes           map[string]int32  // control-plane-probe-configuration: "etcd-startup-failure-threshold" to 30
	EtcdExposeMetrics            bool              // etcd-expose-metrics

	// Reset of the cluster.
	TokenRecover            bool   // token-recover: once, make Token the cluster's in the place of one that is lost
	TokenRecoverUnsealed    bool   // token-recover-unsealed: without proof that the disk is the newest
	ClusterReset            bool   // cluster-reset: once, make a cluster of this one server
	ClusterResetRestorePath string // cluster-reset-restore-path: of this snapshot; empty: of the server's own data

	// Snapshots of etcd.
	DisableSnapshots  bool   // etcd-disable-snapshots: none by schedule
	SnapshotName      string // etcd-snapshot-name
	SnapshotSchedule  string // etcd-snapshot-schedule-cron
	SnapshotRetention int    // etcd-snapshot-retention; 0 keeps all
	SnapshotDir       string // etcd-snapshot-dir; empty: db/snapshots below the server's folder
	SnapshotCompress  bool   // etcd-snapshot-compress
	S3                S3     // etcd-s3-...

	// The supervisor's own endpoints.
	SupervisorMetrics bool // supervisor-metrics
	EnablePprof       bool // enable-pprof

	// Images.
	PrivateRegistry                string // private-registry: path of registries.yaml
	EmbeddedRegistry               bool   // embedded-registry: nodes share images
	DisableDefaultRegistryEndpoint bool   // disable-default-registry-endpoint

	// Security.
	SecretsEncryptionProvider      string // secrets-encryption-provider: aescbc or secretbox
	AuditPolicyFile                string // audit-policy-file
	PodSecurityAdmissionConfigFile string // pod-security-admission-config-file

	tokenFile, agentTokenFile string
	origin                    map[string]position // where each key that was set stands
}

// position is a line of a file.
type position struct {
	file string
	line int
}

// Default returns RKE2's defaults, save for cni: this version brings flannel where RKE2 brings canal. What depends
// on other settings or on the machine is filled in by Resolve.
func Default() Config {
	return Config{
		DataDir:                   "/var/lib/rancher/rke2",
		ServiceNodePortRange:      PortRange{First: 30000, Last: 32767},
		ClusterDomain:             "cluster.local",
		CNI:                       CNIFlannel,
		FlannelBackend:            FlannelVXLAN,
		EgressSelectorMode:        EgressAgent,
		WriteKubeconfig:           "/etc/rancher/rke2/rke2.yaml",
		WriteKubeconfigMode:       0o600,
		PrivateRegistry:           "/etc/rancher/rke2/registries.yaml",
		SecretsEncryptionProvider: "aescbc",
		SnapshotName:              "etcd-snapshot",
		SnapshotSchedule:          "0 */12 * * *",
		SnapshotRetention:         5,
		S3:                        S3{Region: "us-east-1", Timeout: "5m0s", Retention: 5},
	}
}
