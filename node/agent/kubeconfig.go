package agent

import (
	"context"
	"fmt"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"keelson/node/file"
	"keelson/node/supervisorclient"
)

// Kubeconfigs of the node, as RKE2 names them.
const (
	kubeletConfig    = "kubelet.kubeconfig"
	proxyConfig      = "kubeproxy.kubeconfig"
	controllerConfig = "rke2controller.kubeconfig"
)

// writeKubeconfigs writes the node's kubeconfigs. They name files, so that renewal leaves them alone, and lead to the
// load balancer before the kube-apiservers.
func (a *Agent) writeKubeconfigs(context.Context) error {
	for name, kind := range map[string]supervisorclient.Kind{
		kubeletConfig: supervisorclient.ClientKubelet, proxyConfig: supervisorclient.ClientKubeProxy, controllerConfig: supervisorclient.ClientController,
	} {
		content, err := clientcmd.Write(clientcmdapi.Config{
			Clusters:       map[string]*clientcmdapi.Cluster{"local": {Server: "https://" + a.apiServers.Address(), CertificateAuthority: a.agent("server-ca.crt")}},
			AuthInfos:      map[string]*clientcmdapi.AuthInfo{"user": {ClientCertificate: a.agent(string(kind) + ".crt"), ClientKey: a.agent(string(kind) + ".key")}},
			Contexts:       map[string]*clientcmdapi.Context{"Default": {Cluster: "local", AuthInfo: "user"}},
			CurrentContext: "Default",
		})
		if err != nil {
			return fmt.Errorf("render kubeconfig: %w", err)
		}
		if _, err := file.Ensure(a.agent(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// kubernetes makes a client with the rights of one of the kubeconfigs.
func (a *Agent) kubernetes(name string) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", a.agent(name))
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", name, err)
	}
	config.UserAgent = "keelson-node/" + a.cfg.Version
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return client, nil
}
