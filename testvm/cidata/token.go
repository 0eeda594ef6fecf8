package cidata

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// WithToken makes sure that the host knows the cluster's token: the one of the
// user-data, or else one that is put into vendor-data, over which user-data
// wins. keep is the token of the seed before, or "".
func (seed Volume) WithToken(keep string) (Volume, string, error) {
	if token := TokenOf(seed.UserData); token != "" {
		return seed, token, nil
	}
	if token := TokenOf(seed.VendorData); token != "" {
		return seed, token, nil
	}
	if seed.VendorData != nil {
		return seed, "", fmt.Errorf("seed: the vendor-data holds no token under rke2: put one there or into the user-data")
	}
	if keep == "" {
		var random [16]byte
		rand.Read(random[:]) // never fails (crypto/rand)
		keep = hex.EncodeToString(random[:])
	}
	vendor, err := CloudConfig{RKE2: map[string]any{"token": keep}}.Render()
	if err != nil {
		return seed, "", err
	}
	seed.VendorData = vendor
	return seed, keep, nil
}

// TokenOf finds the token in a document that is a cloud-config, under rke2 or
// in a file of RKE2's configuration. It is not strict: what is wrong with the
// document, the machine will say.
func TokenOf(document []byte) string {
	var d struct {
		RKE2       struct{ Token string }                     `yaml:"rke2"`
		WriteFiles []struct{ Path, Content, Encoding string } `yaml:"write_files"`
	}
	if yaml.Unmarshal(document, &d) != nil {
		return ""
	}
	if d.RKE2.Token != "" {
		return d.RKE2.Token
	}
	for _, f := range d.WriteFiles {
		if f.Encoding != "" || !strings.HasPrefix(f.Path, "/etc/rancher/rke2/config.yaml") {
			continue
		}
		var config struct{ Token string }
		if yaml.Unmarshal([]byte(f.Content), &config) == nil && config.Token != "" {
			return config.Token
		}
	}
	return ""
}
