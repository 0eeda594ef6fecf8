// Package staticpod renders the manifests of a server's own pods: etcd, the Kubernetes control plane and kube-proxy,
// with RKE2's arguments, labels, priority, volumes and probes (rancher/rke2 pkg/executor/staticpod, pkg/podtemplate).
//
// It renders and writes; it never starts, watches or removes a pod, and it reads files only to mount and hash them.
// node/server fills Server from node/config and the paths that node/pki made; the kubelet runs the result.
package staticpod

import (
	"fmt"
	"io/fs"
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"keelson/node/config"
)

// Names of the components, which are also the names of their pods, containers, commands and manifest files.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	CloudController   = "cloud-controller-manager"
	KubeProxy         = "kube-proxy"
)

// Server is what the pods of one server have in common. All paths are absolute.
type Server struct {
	DataDir  string            // <data>, such as /var/lib/rancher/rke2
	NodeName string            // for kube-proxy
	Images   map[string]string // component to full image reference

	ClusterCIDR      string // comma-separated for two families, as the flags take it
	ServiceCIDR      string
	NodePortRange    string
	ClusterDomain    string
	ListenAddress    string // of kube-apiserver: every address of the cluster's families
	AdvertiseAddress string // of kube-apiserver; "" leaves it to kube-apiserver

	AuthenticationConfig string // file that lets anonymous requests read /livez and /readyz, and nothing else
	EncryptionConfig     string // "" without secrets encryption
	AdmissionConfig      string // pod security admission; "" for none
	AuditPolicy          string // "" without audit
	EgressConfig         string // egress selector configuration; "" lets kube-apiserver dial by itself
	CloudConfig          string // of the cloud controller

	EtcdInitial EtcdInitial // "" fields for a member that is started again without it

	Components map[string]config.Component // what the user set, by component name
	Requests   map[string]string           // "<component>-cpu|memory" to a quantity
	Limits     map[string]string
	Probes     map[string]int32 // "<component>-<probe>-<setting>" to a number
	ProxyEnv   []string         // "NAME=value" of the supervisor's own variables whose name contains "proxy"

	Files fs.FS // the machine's files, rooted at /
}

// EtcdInitial is what RKE2 keeps in the annotation etcd.k3s.io/initial, so that a restarted member has its first
// initial-cluster again (k3s pkg/daemons/executor, InitialOptions).
type EtcdInitial struct {
	AdvertisePeerURL string `json:"initial-advertise-peer-urls,omitempty"`
	Cluster          string `json:"initial-cluster,omitempty"`
	State            string `json:"initial-cluster-state,omitempty"`
}

// definition is one component before the user's settings are laid over it.
type definition struct {
	name        string
	args        map[string]string
	dirs        []string // mounted whole, writable
	files       []string // mounted beside those that the arguments name
	unhashed    []string // files that the component itself reloads: a change must not restart the pod
	argsElse    bool     // the user's arguments are not for the command line
	privileged  bool
	annotations map[string]string
	requests    corev1.ResourceList
	probes      probes
}

// ManifestPath returns where the kubelet looks for the component's manifest.
func (s Server) ManifestPath(component string) string {
	return path.Join(s.agent(), "pod-manifests", component+".yaml")
}

func (s Server) server() string { return path.Join(s.DataDir, "server") }
func (s Server) agent() string  { return path.Join(s.DataDir, "agent") }
func (s Server) tls(name string) string {
	return path.Join(s.DataDir, "server", "tls", name)
}
func (s Server) cred(name string) string {
	return path.Join(s.DataDir, "server", "cred", name)
}

// Render returns the component's manifest. Files that its arguments name are mounted only when they are there, so
// they have to be written before.
func (s Server) Render(component string) ([]byte, error) {
	def, err := s.define(component)
	if err != nil {
		return nil, err
	}
	pod, err := s.pod(def)
	if err != nil {
		return nil, fmt.Errorf("render pod %s: %w", component, err)
	}
	pod.UID = types.UID(uid(pod, s.ManifestPath(component)))
	out, err := yaml.Marshal(pod)
	if err != nil {
		return nil, fmt.Errorf("render pod %s: %w", component, err)
	}
	return out, nil
}

func (s Server) define(component string) (definition, error) {
	switch component {
	case Etcd:
		return s.etcd()
	case APIServer:
		return s.apiServer()
	case ControllerManager:
		return s.controllerManager(), nil
	case Scheduler:
		return s.scheduler(), nil
	case CloudController:
		return s.cloudController(), nil
	case KubeProxy:
		return s.kubeProxy(), nil
	}
	return definition{}, fmt.Errorf("render pod %q: not a component of a server", component)
}
