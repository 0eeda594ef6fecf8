package pki

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

// defaultAPIServer is the local kube-apiserver.
const defaultAPIServer = "https://127.0.0.1:6443"

// The kubeconfig document, with the fields that we use (k8s.io/client-go tools/clientcmd/api/v1), in kubectl's
// alphabetical order.
type kubeconfig struct {
	APIVersion     string         `yaml:"apiVersion"`
	Clusters       []namedCluster `yaml:"clusters"`
	Contexts       []namedContext `yaml:"contexts"`
	CurrentContext string         `yaml:"current-context"`
	Kind           string         `yaml:"kind"`
	Preferences    struct{}       `yaml:"preferences"`
	Users          []namedUser    `yaml:"users"`
}

type namedCluster struct {
	Cluster cluster `yaml:"cluster"`
	Name    string  `yaml:"name"`
}

type cluster struct {
	CA     string `yaml:"certificate-authority,omitempty"`
	CAData string `yaml:"certificate-authority-data,omitempty"`
	Server string `yaml:"server"`
}

type namedContext struct {
	Context context `yaml:"context"`
	Name    string  `yaml:"name"`
}

type context struct {
	Cluster   string `yaml:"cluster"`
	Namespace string `yaml:"namespace,omitempty"`
	User      string `yaml:"user"`
}

type namedUser struct {
	Name string `yaml:"name"`
	User user   `yaml:"user"`
}

type user struct {
	Cert     string `yaml:"client-certificate,omitempty"`
	CertData string `yaml:"client-certificate-data,omitempty"`
	Key      string `yaml:"client-key,omitempty"`
	KeyData  string `yaml:"client-key-data,omitempty"`
}

// kubeconfigs writes one kubeconfig for each component, with references to files, and the administrator's, with the
// data in it.
func kubeconfigs(b *batch, p Params, serverCA *authority) error {
	url := p.APIServer
	if url == "" {
		url = defaultAPIServer
	}
	local := p.LocalAPIServer
	if local == "" {
		local = url
	}
	agent := func(name string) string { return filepath.Join(p.AgentDir, name) }
	for _, k := range []struct{ path, client, ca, url string }{
		{p.cred("admin.kubeconfig"), p.tls("client-admin"), p.tls("server-ca.crt"), url},
		{p.cred("supervisor.kubeconfig"), p.tls("client-supervisor"), p.tls("server-ca.crt"), url},
		{p.cred("controller.kubeconfig"), p.tls("client-controller"), p.tls("server-ca.crt"), url},
		{p.cred("scheduler.kubeconfig"), p.tls("client-scheduler"), p.tls("server-ca.crt"), url},
		{p.cred("api-server.kubeconfig"), p.tls("client-kube-apiserver"), p.tls("server-ca.crt"), url},
		{p.cred("cloud-controller.kubeconfig"), p.tls("client-rke2-cloud-controller"), p.tls("server-ca.crt"), url},
		{agent("kubelet.kubeconfig"), agent("client-kubelet"), agent("server-ca.crt"), local},
		{agent("kubeproxy.kubeconfig"), agent("client-kube-proxy"), agent("server-ca.crt"), local},
		{agent("rke2controller.kubeconfig"), agent("client-rke2-controller"), agent("server-ca.crt"), local},
	} {
		data, err := render("local", "Default", "user", cluster{CA: k.ca, Server: k.url}, user{Cert: k.client + ".crt", Key: k.client + ".key"})
		if err != nil {
			return err
		}
		b.put(k.path, data, 0o600)
	}
	if p.Kubeconfig == "" {
		return nil
	}
	encode := base64.StdEncoding.EncodeToString
	data, err := render("default", "default", "default",
		cluster{CAData: encode(serverCA.bundle), Server: url},
		user{CertData: encode(b.content[p.tls("client-admin.crt")]), KeyData: encode(b.content[p.tls("client-admin.key")])})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p.Kubeconfig), 0o755); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	mode := p.KubeconfigMode
	if mode == 0 {
		mode = 0o600
	}
	b.put(p.Kubeconfig, data, mode)
	return nil
}

func render(clusterName, contextName, userName string, c cluster, u user) ([]byte, error) {
	doc := kubeconfig{
		APIVersion:     "v1",
		Clusters:       []namedCluster{{Cluster: c, Name: clusterName}},
		Contexts:       []namedContext{{Context: context{Cluster: clusterName, User: userName}, Name: contextName}},
		CurrentContext: contextName,
		Kind:           "Config",
		Users:          []namedUser{{Name: userName, User: u}},
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		return nil, fmt.Errorf("render kubeconfig: %w", err)
	}
	return b.Bytes(), nil
}
