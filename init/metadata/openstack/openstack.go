// Package openstack reads the documents that OpenStack gives to a machine, from
// its metadata service or from a volume labelled config-2.
//
// Source: docs.openstack.org/nova, "Metadata service" and "Config drives".
// network_data.json is handed on as it is, for package netconfig. Package
// source starts Fetch once the network is up, and Read for a volume.
package openstack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"keelson/init/dmi"
	"keelson/init/metadata"
	"keelson/init/userdata"
)

// Name is what messages call the service.
const Name = "OpenStack metadata"

// Folder holds the documents, on a volume and at the service.
const Folder = "openstack/latest"

const service = "http://169.254.169.254/" + Folder + "/"

// Here tells by product, or by the chassis of clouds that are made with it.
func Here(id dmi.Identity) bool {
	products := []string{"OpenStack Nova", "OpenStack Compute"}
	chassis := append(products, "HUAWEICLOUD", "OpenTelekomCloud", "SAP CCloud VM", "Samsung Cloud Platform")
	return slices.Contains(products, id.ProductName) || slices.Contains(chassis, id.ChassisTag)
}

// Fetch asks the metadata service.
func Fetch(ctx context.Context, c *metadata.Client) (userdata.Documents, error) {
	return Read(Name, func(name string) ([]byte, error) { return c.Get(ctx, service+name, nil) })
}

// Read gathers the documents by get, which gives metadata.ErrNotFound for one
// that is absent. meta_data.json must be there.
func Read(source string, get func(name string) ([]byte, error)) (docs userdata.Documents, err error) {
	about, err := get("meta_data.json")
	if err != nil {
		return docs, fmt.Errorf("%s: %w", source, err)
	}
	var instance struct {
		UUID     string `json:"uuid"`
		Hostname string `json:"hostname"`
		Name     string `json:"name"`
	}
	if err := json.Unmarshal(about, &instance); err != nil {
		return docs, fmt.Errorf("%s: meta_data.json: %w", source, err)
	}
	if instance.Hostname == "" {
		instance.Hostname = instance.Name
	}
	optional := map[string][]byte{}
	for _, name := range []string{"user_data", "vendor_data.json", "network_data.json"} {
		if optional[name], err = metadata.Optional(get(name)); err != nil {
			return docs, fmt.Errorf("%s: %w", source, err)
		}
	}
	vendor, err := vendorData(optional["vendor_data.json"])
	if err != nil {
		return docs, fmt.Errorf("%s: vendor_data.json: %w", source, err)
	}
	docs.Meta = metadata.Meta(source, instance.UUID, instance.Hostname)
	docs.Vendor = metadata.Document(source, "vendor-data", vendor)
	docs.User = metadata.Document(source, "user-data", optional["user_data"])
	docs.Network = metadata.Document(source, "network_data.json", optional["network_data.json"])
	return docs, nil
}

// vendorData finds what is for us: a text, or the text under the key cloud-init
// of a map that has other programs' keys too.
func vendorData(data []byte) ([]byte, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil
	}
	var any json.RawMessage
	if err := json.Unmarshal(data, &any); err != nil {
		return nil, err
	}
	var text string
	if json.Unmarshal(any, &text) == nil {
		return []byte(text), nil
	}
	var keys struct {
		CloudInit json.RawMessage `json:"cloud-init"`
	}
	if json.Unmarshal(any, &keys) != nil || keys.CloudInit == nil || string(keys.CloudInit) == "null" {
		return nil, nil // a list, or keys of others
	}
	if err := json.Unmarshal(keys.CloudInit, &text); err != nil {
		return nil, errors.New("cloud-init: is not a text")
	}
	return []byte(text), nil
}
