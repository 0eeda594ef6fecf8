package encryption

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Key is a key that encrypts Secrets.
type Key struct {
	Provider string // aescbc or secretbox
	Name     string
	Secret   string // base64
}

// String names the key and never shows it.
func (k Key) String() string { return k.Provider + " " + k.Name }

// GoString is String: not even %#v shows a key.
func (k Key) GoString() string { return k.String() }

// Prefix is what begins a value in etcd that the key has encrypted (k8s.io/apiserver, encryptionconfig/config.go).
func (k Key) Prefix() string { return "k8s:enc:" + k.Provider + ":v1:" + k.Name + ":" }

// Configuration is what Secrets are read and written with.
type Configuration struct {
	Keys  []Key // all are read with; the first writes
	Plain bool  // Secrets are written in plain, and the keys read alone
}

// Prefix is what begins a value in etcd that was written with the configuration; "" where that is none of a key.
func (c Configuration) Prefix() string {
	if c.Plain {
		return ""
	}
	return c.Keys[0].Prefix()
}

// Parse reads an EncryptionConfiguration as RKE2 and we write it: of Secrets, with keys of aescbc and secretbox, and
// identity before or after them. Errors never quote it.
func Parse(data []byte) (Configuration, error) {
	var d document
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if decoder.Decode(&d) != nil {
		return Configuration{}, errors.New("it is not an EncryptionConfiguration in JSON with aescbc, secretbox and identity alone")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Configuration{}, errors.New("there is something behind the EncryptionConfiguration")
	}
	if d.Kind != "EncryptionConfiguration" || len(d.Resources) != 1 || !slices.Equal(d.Resources[0].Resources, []string{"secrets"}) {
		return Configuration{}, errors.New("it is not an EncryptionConfiguration of secrets alone")
	}
	return parseProviders(d.Resources[0].Providers)
}

func parseProviders(all []provider) (Configuration, error) {
	var c Configuration
	for i, p := range all {
		name, of := "aescbc", p.AESCBC
		if of == nil {
			name, of = "secretbox", p.Secretbox
		}
		if (p.AESCBC != nil && p.Secretbox != nil) || (of != nil) == (p.Identity != nil) {
			return c, fmt.Errorf("provider %d is not one of aescbc, secretbox and identity", i)
		}
		if p.Identity != nil {
			if i != 0 && i != len(all)-1 {
				return c, errors.New("identity is neither the first provider nor the last")
			}
			if i == 0 {
				c.Plain = true
			}
			continue
		}
		for _, k := range of.Keys {
			c.Keys = append(c.Keys, Key{Provider: name, Name: k.Name, Secret: k.Secret})
		}
	}
	return c, c.check()
}

func (c Configuration) check() error {
	if len(c.Keys) == 0 {
		return errors.New("it has no key")
	}
	for i, k := range c.Keys {
		if k.Name == "" {
			return fmt.Errorf("key %d has no name", i)
		}
		secret, err := base64.StdEncoding.DecodeString(k.Secret)
		size := len(secret)
		if err != nil || size != 32 && (k.Provider != "aescbc" || size != 16 && size != 24) {
			return fmt.Errorf("the secret of key %s is not base64 of a key's size", k)
		}
		for _, other := range c.Keys[:i] {
			// kube-apiserver tells keys apart by the beginning of a value.
			if strings.HasPrefix(k.Prefix(), other.Prefix()) || strings.HasPrefix(other.Prefix(), k.Prefix()) {
				return fmt.Errorf("keys %s and %s cannot be told apart", other, k)
			}
		}
	}
	return nil
}

// Render writes the configuration, which Parse reads.
func (c Configuration) Render() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("render encryption config: %w", err)
	}
	var all []provider
	for i, k := range c.Keys {
		if i == 0 || c.Keys[i-1].Provider != k.Provider {
			next := provider{AESCBC: &keys{}}
			if k.Provider == "secretbox" {
				next = provider{Secretbox: &keys{}}
			}
			all = append(all, next)
		}
		of := all[len(all)-1].AESCBC
		if of == nil {
			of = all[len(all)-1].Secretbox
		}
		of.Keys = append(of.Keys, key{Name: k.Name, Secret: k.Secret})
	}
	identity := provider{Identity: &struct{}{}}
	if c.Plain {
		all = append([]provider{identity}, all...)
	} else {
		all = append(all, identity)
	}
	out, err := json.Marshal(document{
		Kind: "EncryptionConfiguration", APIVersion: "apiserver.config.k8s.io/v1",
		Resources: []resource{{Resources: []string{"secrets"}, Providers: all}},
	})
	if err != nil {
		return nil, fmt.Errorf("render encryption config: %w", err)
	}
	return out, nil
}
