package kubelet

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// configuration holds the fields of kubelet.config.k8s.io/v1beta1 KubeletConfiguration that we set. The type itself
// would write every duration that we do not set as 0s.
type configuration struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`

	Authentication authentication `json:"authentication"`
	Authorization  authorization  `json:"authorization"`
	TLSCertFile    string         `json:"tlsCertFile"`
	TLSKeyFile     string         `json:"tlsPrivateKeyFile"`

	ContainerRuntimeEndpoint string   `json:"containerRuntimeEndpoint"`
	CgroupDriver             string   `json:"cgroupDriver"`
	ClusterDNS               []string `json:"clusterDNS"`
	ClusterDomain            string   `json:"clusterDomain"`
	ResolvConf               string   `json:"resolvConf"`
	StaticPodPath            string   `json:"staticPodPath"`
	VolumePluginDir          string   `json:"volumePluginDir"`

	EvictionHard           map[string]string `json:"evictionHard"`
	EvictionMinimumReclaim map[string]string `json:"evictionMinimumReclaim"`
	FailSwapOn             bool              `json:"failSwapOn"`
	ProtectKernelDefaults  bool              `json:"protectKernelDefaults"`
	RegisterWithTaints     []taint           `json:"registerWithTaints,omitempty"`

	Address                        string   `json:"address,omitempty"`
	HealthzBindAddress             string   `json:"healthzBindAddress"`
	FileCheckFrequency             duration `json:"fileCheckFrequency"`
	SyncFrequency                  duration `json:"syncFrequency"`
	NodeStatusUpdateFrequency      duration `json:"nodeStatusUpdateFrequency"`
	NodeStatusReportFrequency      duration `json:"nodeStatusReportFrequency"`
	ImageMinimumGCAge              duration `json:"imageMinimumGCAge"`
	RuntimeRequestTimeout          duration `json:"runtimeRequestTimeout"`
	StreamingConnectionIdleTimeout duration `json:"streamingConnectionIdleTimeout"`
	SerializeImagePulls            bool     `json:"serializeImagePulls"`
}

type authentication struct {
	Anonymous struct {
		Enabled bool `json:"enabled"`
	} `json:"anonymous"`
	Webhook struct {
		Enabled  bool     `json:"enabled"`
		CacheTTL duration `json:"cacheTTL"`
	} `json:"webhook"`
	X509 struct {
		ClientCAFile string `json:"clientCAFile"`
	} `json:"x509"`
}

type authorization struct {
	Mode    string `json:"mode"`
	Webhook struct {
		CacheAuthorizedTTL   duration `json:"cacheAuthorizedTTL"`
		CacheUnauthorizedTTL duration `json:"cacheUnauthorizedTTL"`
	} `json:"webhook"`
}

type taint struct {
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
	Effect string `json:"effect"`
}

// settings renders the drop-in. What makes a start quick needs no polling here: the kubelet finds static pods by
// inotify (fileCheckFrequency is its safety net), tries ten times a second to report a Ready node until it has once
// succeeded, and is kept from backing off its registration by node/gate, which holds its connections until the API
// server is there. nodeStatusUpdateFrequency is also the time-out of a status report, so smaller is not faster.
func settings(p Params) ([]byte, error) {
	taints, err := parseTaints(p.Taints)
	if err != nil {
		return nil, err
	}
	c := configuration{
		APIVersion: "kubelet.config.k8s.io/v1beta1",
		Kind:       "KubeletConfiguration",

		TLSCertFile: p.ServingCert,
		TLSKeyFile:  p.ServingKey,

		ContainerRuntimeEndpoint: "unix://" + p.RuntimeSocket,
		CgroupDriver:             "cgroupfs",
		ClusterDNS:               p.ClusterDNS,
		ClusterDomain:            p.ClusterDomain,
		ResolvConf:               p.ResolvConf,
		StaticPodPath:            p.PodManifests,
		VolumePluginDir:          "/var/lib/kubelet/volumeplugins",

		// RKE2 has the two of the disk. Without one for memory the kernel's OOM killer is the only guard, and it
		// may choose the control plane.
		EvictionHard:           map[string]string{"imagefs.available": "5%", "nodefs.available": "5%", "nodefs.inodesFree": "5%", "memory.available": "100Mi"},
		EvictionMinimumReclaim: map[string]string{"imagefs.available": "10%", "nodefs.available": "10%"},
		ProtectKernelDefaults:  p.ProtectKernel,
		RegisterWithTaints:     taints,

		Address:                        p.ListenAddress,
		HealthzBindAddress:             "127.0.0.1",
		FileCheckFrequency:             duration(20 * time.Second),
		SyncFrequency:                  duration(time.Minute),
		NodeStatusUpdateFrequency:      duration(10 * time.Second),
		NodeStatusReportFrequency:      duration(5 * time.Minute),
		ImageMinimumGCAge:              duration(2 * time.Minute),
		RuntimeRequestTimeout:          duration(2 * time.Minute),
		StreamingConnectionIdleTimeout: duration(4 * time.Hour),
	}
	c.Authentication.Webhook.Enabled = true
	c.Authentication.Webhook.CacheTTL = duration(2 * time.Minute)
	c.Authentication.X509.ClientCAFile = p.ClientCA
	c.Authorization.Mode = "Webhook"
	c.Authorization.Webhook.CacheAuthorizedTTL = duration(5 * time.Minute)
	c.Authorization.Webhook.CacheUnauthorizedTTL = duration(30 * time.Second)
	return yaml.Marshal(c)
}

// parseTaints reads taints of the form key[=value]:effect, as kubectl taint takes them.
func parseTaints(texts []string) ([]taint, error) {
	var taints []taint
	for _, text := range texts {
		rest, effect, ok := strings.Cut(text, ":")
		key, value, _ := strings.Cut(rest, "=")
		if !ok || key == "" || !slices.Contains([]string{"NoSchedule", "PreferNoSchedule", "NoExecute"}, effect) {
			return nil, fmt.Errorf("taint %q: not of the form key[=value]:effect with NoSchedule, PreferNoSchedule or NoExecute", text)
		}
		taints = append(taints, taint{key, value, effect})
	}
	return taints, nil
}
