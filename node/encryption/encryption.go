// Package encryption makes the cluster's own symmetric secrets: the configuration with which kube-apiserver encrypts
// Secrets at rest, its state, and the pre-shared key that servers keep for node-to-node encryption. It makes the first
// ones, and says what the next ones are when keys rotate (Settings); it never rewrites a Secret or changes a file that
// is there: package reencryption does the one, and the bootstrap record the other.
//
// node/server calls Ensure before the first save of bootstrap data, which carries the files to other servers;
// kube-apiserver reads the configuration. Formats: k3s pkg/secretsencrypt, k8s.io/apiserver/pkg/apis/apiserver/v1.
package encryption

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"keelson/node/file"
)

const (
	keySize = 32 // both providers take 256-bit keys
	pskSize = 48
)

// The EncryptionConfiguration document, with the fields that we write, in the order of the Go API type.
type document struct {
	Kind       string     `json:"kind"`
	APIVersion string     `json:"apiVersion"`
	Resources  []resource `json:"resources"`
}

type resource struct {
	Resources []string   `json:"resources"`
	Providers []provider `json:"providers"`
}

type provider struct {
	AESCBC    *keys     `json:"aescbc,omitempty"`
	Secretbox *keys     `json:"secretbox,omitempty"`
	Identity  *struct{} `json:"identity,omitempty"`
}

type keys struct {
	Keys []key `json:"keys"`
}

type key struct {
	Name   string `json:"name"`
	Secret string `json:"secret"`
}

// Ensure makes cred/encryption-config.json, encryption-state.json and ipsec.psk under <server> where they are
// missing, and returns the paths it wrote. providerName is aescbc or secretbox; a cluster that encrypts with the
// other already is an error, because its Secrets would have to be rewritten.
func Ensure(serverDir, providerName string) ([]string, error) {
	cred := filepath.Join(serverDir, "cred")
	if err := os.MkdirAll(cred, 0o700); err != nil {
		return nil, fmt.Errorf("ensure encryption: %w", err)
	}
	var files []file.File
	add := func(name string, data []byte) {
		files = append(files, file.File{Path: filepath.Join(cred, name), Data: data, Mode: 0o600})
	}
	config, err := os.ReadFile(filepath.Join(cred, "encryption-config.json"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if config, err = Config(providerName); err != nil {
			return nil, err
		}
		// A state without its configuration says nothing; it is replaced below.
		add("encryption-config.json", config)
		add("encryption-state.json", first(config))
	case err != nil:
		return nil, fmt.Errorf("ensure encryption: %w", err)
	default:
		if err := check(config, providerName); err != nil {
			return nil, fmt.Errorf("load %s: %w", filepath.Join(cred, "encryption-config.json"), err)
		}
		if missing(cred, "encryption-state.json") {
			add("encryption-state.json", first(config))
		}
	}
	if missing(cred, "ipsec.psk") {
		add("ipsec.psk", []byte(hex.EncodeToString(random(pskSize))+"\n"))
	}
	if err := file.WriteAll(files); err != nil {
		return nil, fmt.Errorf("ensure encryption: %w", err)
	}
	var paths []string
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	return paths, nil
}

// Config makes an EncryptionConfiguration with a fresh key of the provider, and identity to read what is not
// encrypted.
func Config(providerName string) ([]byte, error) {
	if providerName != "aescbc" && providerName != "secretbox" {
		return nil, fmt.Errorf("encryption provider %q is neither aescbc nor secretbox", providerName)
	}
	k := NewKey(providerName, time.Time{})
	k.Name = providerName + "key" // the first has no date
	return Configuration{Keys: []Key{k}}.Render()
}

// first is the state of a configuration that has never been rotated.
func first(config []byte) []byte { return []byte(Settings{Stage: Start, Data: config}.Mark()) }

// check reads a configuration on disk. A rotation may have put identity first or added keys; only the provider
// matters here.
func check(config []byte, providerName string) error {
	var d document
	if err := json.Unmarshal(config, &d); err != nil || len(d.Resources) == 0 {
		return errors.New("it is not an EncryptionConfiguration; put it back, or the Secrets that it encrypted are lost")
	}
	for _, p := range d.Resources[0].Providers {
		have := ""
		if p.AESCBC != nil {
			have = "aescbc"
		} else if p.Secretbox != nil {
			have = "secretbox"
		}
		if have == providerName {
			return nil
		}
		if have != "" {
			return fmt.Errorf("this cluster encrypts with %s and secrets-encryption-provider is %s; set it to %s", have, providerName, have)
		}
	}
	return errors.New("it has neither an aescbc nor a secretbox key; put it back, or the Secrets that it encrypted are lost")
}

func missing(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return errors.Is(err, fs.ErrNotExist)
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}
