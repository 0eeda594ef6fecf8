package tunnel

import "go.yaml.in/yaml/v3"

// egressURL is the supervisor on its own machine. kube-apiserver runs in the host's network.
const egressURL = "https://127.0.0.1:9345"

// EgressConfig renders the file of kube-apiserver's --egress-selector-config-file that sends what it dials in the
// cluster ("cluster": nodes, pods, services) as CONNECT to the supervisor beside it. The files are kube-apiserver's
// client certificate (of system:masters) with its key, and the CA of the supervisor's certificate.
// Format: apiserver.k8s.io/v1beta1 EgressSelectorConfiguration (k8s.io/apiserver pkg/apis/apiserver/v1beta1/types.go).
func EgressConfig(clientCert, clientKey, caFile string) []byte {
	type tlsConfig struct {
		CABundle   string `yaml:"caBundle"`
		ClientKey  string `yaml:"clientKey"`
		ClientCert string `yaml:"clientCert"`
	}
	type tcp struct {
		URL string    `yaml:"url"`
		TLS tlsConfig `yaml:"tlsConfig"`
	}
	type transport struct {
		TCP tcp `yaml:"tcp"`
	}
	type connection struct {
		Protocol  string    `yaml:"proxyProtocol"`
		Transport transport `yaml:"transport"`
	}
	type selection struct {
		Name       string     `yaml:"name"`
		Connection connection `yaml:"connection"`
	}
	out, _ := yaml.Marshal(struct {
		APIVersion string      `yaml:"apiVersion"`
		Kind       string      `yaml:"kind"`
		Selections []selection `yaml:"egressSelections"`
	}{"apiserver.k8s.io/v1beta1", "EgressSelectorConfiguration", []selection{{"cluster", connection{"HTTPConnect",
		transport{tcp{egressURL, tlsConfig{caFile, clientKey, clientCert}}}}}}})
	return out // structs of strings always marshal
}
