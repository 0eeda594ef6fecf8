// Package apiserver renders the files that kube-apiserver reads beside its arguments: who may ask without a name, how
// Secrets are encrypted, which pods are admitted.
//
// It only makes bytes. node/server writes them where node/staticpod points kube-apiserver; the encryption
// configuration is also part of the bootstrap record that node/bootstrapdata keeps in etcd.
package apiserver

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Secrets encryption providers that RKE2 knows (k3s pkg/secretsencrypt).
const (
	AESCBC    = "aescbc"
	SecretBox = "secretbox"
)

// KeySize is the size of an encryption key for either provider.
const KeySize = 32

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

// encryption is apiserver.config.k8s.io/v1's EncryptionConfiguration, as far as k3s writes it, in its order of fields.
type encryption struct {
	Kind       string               `json:"kind"`
	APIVersion string               `json:"apiVersion"`
	Resources  []encryptedResources `json:"resources"`
}

type encryptedResources struct {
	Resources []string         `json:"resources"`
	Providers []map[string]any `json:"providers"`
}

type encryptionKeys struct {
	Keys []encryptionKey `json:"keys"`
}

type encryptionKey struct {
	Name   string `json:"name"`
	Secret string `json:"secret"`
}

// Encryption returns a first encryption configuration (<server>/cred/encryption-config.json) with one key, and the
// text of the state file beside it. A server that has one keeps it: what is encrypted can be read with its keys only.
func Encryption(provider string, key []byte) (config, state []byte, err error) {
	if provider != AESCBC && provider != SecretBox {
		return nil, nil, fmt.Errorf("render encryption configuration: provider %q is neither %s nor %s", provider, AESCBC, SecretBox)
	}
	if len(key) != KeySize {
		return nil, nil, fmt.Errorf("render encryption configuration: key has %d bytes, want %d", len(key), KeySize)
	}
	config, err = json.Marshal(encryption{
		Kind:       "EncryptionConfiguration",
		APIVersion: "apiserver.config.k8s.io/v1",
		Resources: []encryptedResources{{
			Resources: []string{"secrets"},
			Providers: []map[string]any{
				{provider: encryptionKeys{Keys: []encryptionKey{{
					Name: provider + "key", Secret: base64.StdEncoding.EncodeToString(key),
				}}}},
				{"identity": struct{}{}},
			},
		}},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("render encryption configuration: %w", err)
	}
	digest := sha256.Sum256(config)
	return config, []byte("start-" + hex.EncodeToString(digest[:])), nil
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
