// Package hetzner reads the metadata of Hetzner Cloud.
//
// Source: docs.hetzner.cloud, "Server Metadata". Package source starts Fetch
// once the network is up.
package hetzner

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"keelson/init/dmi"
	"keelson/init/metadata"
	"keelson/init/userdata"
)

// Name is what messages call this source.
const Name = "Hetzner metadata"

const root = "http://169.254.169.254/hetzner/v1/"

// Here tells by vendor.
func Here(id dmi.Identity) bool { return id.SystemVendor == "Hetzner" }

// Fetch reads what the server was started with. Its network-config, version 1,
// has the IPv6 address, which no router tells.
func Fetch(ctx context.Context, c *metadata.Client) (docs userdata.Documents, err error) {
	about, err := c.Get(ctx, root+"metadata", nil)
	if err != nil {
		return docs, fmt.Errorf("%s: %w", Name, err)
	}
	var server struct {
		ID         string `yaml:"instance-id"`
		Hostname   string `yaml:"hostname"`
		VendorData string `yaml:"vendor_data"`
	}
	if err := yaml.Unmarshal(about, &server); err != nil {
		return docs, fmt.Errorf("%s: metadata is not what is documented: %w", Name, err)
	}
	network, err := metadata.Optional(c.Get(ctx, root+"metadata/network-config", nil))
	if err != nil {
		return docs, fmt.Errorf("%s: %w", Name, err)
	}
	user, err := metadata.Optional(c.Get(ctx, root+"userdata", nil))
	if err != nil {
		return docs, fmt.Errorf("%s: %w", Name, err)
	}
	// The service keeps texts alone, so that gzip comes as base64 (cloud-init,
	// DataSourceHetzner.py).
	if packed, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(user)), "")); err == nil {
		user = packed
	}
	docs.Meta = metadata.Meta(Name, server.ID, server.Hostname)
	docs.Vendor = metadata.Document(Name, "vendor-data", []byte(server.VendorData))
	docs.Network = metadata.Document(Name, "network-config", network)
	docs.User = metadata.Document(Name, "user-data", user)
	return docs, nil
}
