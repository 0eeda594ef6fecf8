// Package vmware reads what vSphere, Fusion and Workstation give to a machine:
// the values guestinfo.metadata, guestinfo.userdata and guestinfo.vendordata,
// and the OVF environment, as the value guestinfo.ovfEnv or on a CD.
//
// Sources: canonical/cloud-init, doc/rtd/reference/datasources/vmware.rst and
// ovf.rst for names and encodings; DMTF DSP0243 9 for the environment. A value
// may be base64, or gzip in base64, where KEY.encoding says so. Package source
// starts Read where SMBIOS says VMware, and ReadOVF for a CD. Nothing is
// written to guestinfo, and nothing of the user's documents is interpreted.
package vmware

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	"keelson/init/dmi"
	"keelson/init/metadata"
	"keelson/init/metadata/backdoor"
	"keelson/init/userdata"
)

// Name is what messages call this source.
const Name = "VMware guestinfo"

// Here tells by product, as cloud-init does, or by vendor.
func Here(id dmi.Identity) bool {
	return strings.Contains(strings.ToLower(id.ProductName), "vmware") || strings.HasPrefix(id.SystemVendor, "VMware")
}

// Read asks the hypervisor by do, backdoor.Do on a machine. The identity stands
// in for an instance-id that nobody gave.
func Read(do func(func(backdoor.Port) error) error, id dmi.Identity) (docs userdata.Documents, err error) {
	err = do(func(port backdoor.Port) (err error) {
		c, err := backdoor.New(port)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		docs, err = read(guest{c})
		return err
	})
	if err != nil {
		return userdata.Documents{}, fmt.Errorf("%s: %w", Name, err)
	}
	if !docs.Empty() { // weaker than what metadata says
		docs.Meta = append(metadata.Meta(Name+": SMBIOS", strings.ToLower(id.ProductUUID), ""), docs.Meta...)
	}
	return docs, nil
}

func read(g guest) (docs userdata.Documents, err error) {
	env, err := g.get("ovfEnv")
	if err != nil {
		return docs, err
	}
	if len(env) > 0 {
		if docs, err = ReadOVF(Name, env); err != nil {
			return docs, err
		}
	}
	values := map[string][]byte{}
	for _, key := range []string{"metadata", "userdata", "vendordata"} {
		if values[key], err = g.decoded(key); err != nil {
			return docs, err
		}
	}
	about := values["metadata"]
	network, err := networkOf(about)
	if err != nil {
		return docs, err
	}
	docs.Meta = append(docs.Meta, metadata.Document(Name, "metadata", about)...)
	docs.Network = append(docs.Network, metadata.Document(Name, "metadata: network", network)...)
	docs.User = append(docs.User, metadata.Document(Name, "userdata", values["userdata"])...)
	docs.Vendor = append(docs.Vendor, metadata.Document(Name, "vendordata", values["vendordata"])...)
	return docs, nil
}

// guest gives values of guestinfo.
type guest struct{ channel *backdoor.Channel }

// redacted stands in for a value that somebody took away.
const redacted = "---"

// get returns a value, empty where there is none.
func (g guest) get(key string) ([]byte, error) {
	value, ok, err := g.channel.Ask("info-get guestinfo." + key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	value = bytes.TrimRight(value, " \t\r\n\x00")
	if !ok || string(value) == redacted {
		return nil, nil
	}
	return value, nil
}

func (g guest) decoded(key string) ([]byte, error) {
	value, err := g.get(key)
	if err != nil || len(value) == 0 {
		return nil, err
	}
	encoding, err := g.get(key + ".encoding")
	if err != nil {
		return nil, err
	}
	return decode(key, string(encoding), value)
}

// decode undoes what cloud-init knows.
func decode(key, encoding string, value []byte) ([]byte, error) {
	switch encoding {
	case "":
		return value, nil
	case "base64", "b64":
		return metadata.Base64(key, string(value))
	case "gzip+base64", "gz+b64":
		packed, err := metadata.Base64(key, string(value))
		if err != nil {
			return nil, err
		}
		return unpack(key, packed)
	}
	return nil, fmt.Errorf("%s.encoding: %.40q is not known; use base64, gzip+base64, or remove it", key, encoding)
}

func unpack(key string, packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("%s is not gzip: %w", key, err)
	}
	data, err := io.ReadAll(io.LimitReader(z, metadata.MaxBody+1))
	if err != nil {
		return nil, fmt.Errorf("%s is not gzip: %w", key, err)
	}
	if len(data) > metadata.MaxBody {
		return nil, fmt.Errorf("%s is larger than %d MiB; make it smaller", key, metadata.MaxBody>>20)
	}
	return data, nil
}

// networkOf takes the network-config out of metadata: a map, or a text that
// network.encoding says how to read. What is wrong with metadata itself is for
// userdata.Load to say.
func networkOf(about []byte) ([]byte, error) {
	var m struct {
		Network  yaml.Node `yaml:"network"`
		Encoding string    `yaml:"network.encoding"`
	}
	if err := yaml.Unmarshal(about, &m); err != nil || m.Network.IsZero() {
		return nil, nil
	}
	if m.Network.Kind == yaml.ScalarNode {
		return decode("metadata: network", m.Encoding, []byte(m.Network.Value))
	}
	data, err := yaml.Marshal(&m.Network)
	if err != nil {
		return nil, fmt.Errorf("metadata: network: %w", err)
	}
	return data, nil
}
