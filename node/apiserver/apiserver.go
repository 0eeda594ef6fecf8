// Package apiserver renders the files that kube-apiserver reads beside its arguments: who may ask without a name and
// which pods are admitted. The settings of the cloud controller are here too.
//
// It only makes bytes, and has no secrets: how Secrets are encrypted is node/encryption's. node/server writes the files
// where node/staticpod points the components.
package apiserver

// Authentication returns the AuthenticationConfiguration that lets requests without credentials read the two health
// paths of the API server and nothing else (apiserver.config.k8s.io/v1, stable since Kubernetes 1.34). With it the
// kubelet's probes are plain requests.
func Authentication() []byte {
	return []byte(`apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
  - path: /livez
  - path: /readyz
`)
}

// Admission returns the AdmissionConfiguration of pod security as RKE2 writes it without a profile
// (/etc/rancher/rke2/rke2-pss.yaml; rancher/rke2 pkg/rke2/psp.go, unrestricted): every pod is admitted.
func Admission() []byte {
	return []byte(`apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults:
      enforce: privileged
      enforce-version: latest
      audit: privileged
      audit-version: latest
      warn: privileged
      warn-version: latest
    exemptions:
      usernames: []
      runtimeClasses: []
      namespaces: []
`)
}

// CloudConfig returns the settings of the built-in cloud controller (<server>/etc/cloud-config.yaml, which holds JSON;
// k3s pkg/cloudprovider, Config): it initialises Nodes and makes no load balancers.
func CloudConfig() []byte {
	return []byte(`{"lbEnabled":false,"nodeEnabled":true}` + "\n")
}
