// Package digitalocean reads the metadata of DigitalOcean.
//
// Source: docs.digitalocean.com/reference/api/metadata-api. Package source
// starts Fetch once the network is up.
package digitalocean

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"strings"

	"keelson/init/dmi"
	"keelson/init/metadata"
	"keelson/init/userdata"
)

// Name is what messages call this source.
const Name = "DigitalOcean metadata"

const document = "http://169.254.169.254/metadata/v1.json"

// Here tells by vendor.
func Here(id dmi.Identity) bool { return id.SystemVendor == "DigitalOcean" }

// Network reaches the service before anything is known: a droplet has no DHCP,
// and the service answers link-local addresses (cloud-init,
// DataSourceDigitalOcean.py). Ours follows from the droplet's number, RFC 3927
// 2.1 says from where; the first card is the public one.
func Network(id dmi.Identity) []userdata.Document {
	h := fnv.New32a()
	h.Write([]byte(id.ProductSerial))
	n := h.Sum32()
	address := netip.AddrFrom4([4]byte{169, 254, byte(1 + n>>8%168), byte(n)})
	text := fmt.Sprintf("version: 2\nethernets:\n  eth0: {addresses: [%q], link-local: []}\n", netip.PrefixFrom(address, 16))
	return metadata.Document(Name, "way to the service", []byte(text))
}

// droplet is the part of v1.json that matters here.
type droplet struct {
	ID         json.Number `json:"droplet_id"` // a number; a text in the answers of older droplets
	Hostname   string      `json:"hostname"`
	UserData   string      `json:"user_data"`
	VendorData string      `json:"vendor_data"`
	Interfaces struct {
		Private []card `json:"private"`
		Public  []card `json:"public"`
	} `json:"interfaces"`
	DNS struct {
		Servers []string `json:"nameservers"`
	} `json:"dns"`
}

type card struct {
	MAC    string `json:"mac"`
	IPv4   *ipv4  `json:"ipv4"`
	Anchor *ipv4  `json:"anchor_ipv4"`
	IPv6   *struct {
		Address string `json:"ip_address"`
		Length  int    `json:"cidr"`
		Gateway string `json:"gateway"`
	} `json:"ipv6"`
}

type ipv4 struct {
	Address string `json:"ip_address"`
	Netmask string `json:"netmask"`
	Gateway string `json:"gateway"`
}

// Fetch reads what the droplet was started with.
func Fetch(ctx context.Context, c *metadata.Client) (docs userdata.Documents, err error) {
	data, err := c.Get(ctx, document, nil)
	if err != nil {
		return docs, fmt.Errorf("%s: %w", Name, err)
	}
	var d droplet
	if err := json.Unmarshal(data, &d); err != nil {
		return docs, fmt.Errorf("%s: v1.json: %w", Name, err)
	}
	network, err := render(d)
	if err != nil {
		return docs, fmt.Errorf("%s: v1.json: %w", Name, err)
	}
	docs.Meta = metadata.Meta(Name, d.ID.String(), d.Hostname)
	docs.Vendor = metadata.Document(Name, "vendor-data", []byte(d.VendorData))
	docs.User = metadata.Document(Name, "user-data", []byte(d.UserData))
	docs.Network = metadata.Document(Name, "network-config", network)
	return docs, nil
}

// render writes the interfaces as network-config, version 2. Every value is
// parsed first, so that none can be anything but what it says.
func render(d droplet) ([]byte, error) {
	if len(d.Interfaces.Public)+len(d.Interfaces.Private) == 0 {
		return nil, nil
	}
	var servers []string
	for _, s := range d.DNS.Servers {
		if a, err := netip.ParseAddr(s); err == nil {
			servers = append(servers, fmt.Sprintf("%q", a))
		}
	}
	var b strings.Builder
	b.WriteString("version: 2\nethernets:\n")
	for kind, cards := range [][]card{d.Interfaces.Public, d.Interfaces.Private} {
		name := []string{"public", "private"}[kind]
		for i, c := range cards {
			mac, err := net.ParseMAC(c.MAC)
			if err != nil {
				return nil, fmt.Errorf("interfaces.%s[%d].mac: %w", name, i, err)
			}
			addresses, gateways, err := c.addresses()
			if err != nil {
				return nil, fmt.Errorf("interfaces.%s[%d]: %w", name, i, err)
			}
			fmt.Fprintf(&b, "  %s%d:\n    match: {macaddress: %q}\n    addresses: [%s]\n", name, i, mac.String(), strings.Join(addresses, ", "))
			if kind == 0 { // a private network leads nowhere else
				fmt.Fprintf(&b, "    nameservers: {addresses: [%s]}\n", strings.Join(servers, ", "))
				for _, g := range gateways {
					fmt.Fprintf(&b, "    %s\n", g)
				}
			}
		}
	}
	return []byte(b.String()), nil
}

func (c card) addresses() (addresses, gateways []string, err error) {
	for _, v4 := range []*ipv4{c.IPv4, c.Anchor} {
		if v4 == nil || v4.Address == "" {
			continue
		}
		a, err1 := netip.ParseAddr(v4.Address)
		mask, err2 := netip.ParseAddr(v4.Netmask)
		if err1 != nil || err2 != nil || !a.Is4() || !mask.Is4() {
			return nil, nil, fmt.Errorf("%.40q with netmask %.40q is no address", v4.Address, v4.Netmask)
		}
		ones, _ := net.IPMask(mask.AsSlice()).Size()
		addresses = append(addresses, fmt.Sprintf("%q", netip.PrefixFrom(a, ones)))
		if g, err := netip.ParseAddr(v4.Gateway); err == nil && v4 == c.IPv4 {
			gateways = append(gateways, fmt.Sprintf("gateway4: %q", g))
		}
	}
	if c.IPv6 != nil && c.IPv6.Address != "" {
		a, err := netip.ParseAddr(c.IPv6.Address)
		if err != nil || !a.Is6() || c.IPv6.Length < 1 || c.IPv6.Length > 128 {
			return nil, nil, fmt.Errorf("%.60q/%d is no address", c.IPv6.Address, c.IPv6.Length)
		}
		addresses = append(addresses, fmt.Sprintf("%q", netip.PrefixFrom(a, c.IPv6.Length)))
		if g, err := netip.ParseAddr(c.IPv6.Gateway); err == nil {
			gateways = append(gateways, fmt.Sprintf("gateway6: %q", g))
		}
	}
	return addresses, gateways, nil
}
