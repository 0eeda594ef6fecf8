// Package manifests fills the add-on manifests of the image with this cluster's settings, for <server>/manifests.
//
// It knows no add-on but by name and talks to no API server: node/server writes what it renders, node/addons applies
// it. The templates are configs/manifests, which the image has as /usr/lib/keelson/manifests.
package manifests

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"keelson/node/config"
)

// Params are what the templates may refer to, and which of them are wanted.
type Params struct {
	// Of each family one at most. ${CLUSTER_CIDR}, ${SERVICE_CIDR} and ${CLUSTER_DNS_ALL} are all with commas between them,
	// ${CLUSTER_DNS} is the first alone; ${ENABLE_IPV4}, ${CLUSTER_CIDR_IPV4} and those of IPv6 are there in any cluster.
	ClusterCIDR, ServiceCIDR []netip.Prefix
	ClusterDNS               []netip.Addr

	NodePorts config.PortRange // ${NODE_PORTS}

	ClusterDomain string            // ${CLUSTER_DOMAIN}
	Images        map[string]string // "coredns" to its reference: ${IMAGE_COREDNS}

	CNI            string   // config.CNIFlannel or config.CNINone
	FlannelBackend string   // as config.Config has it; ${FLANNEL_BACKEND} is flannel's own name of it
	Disable        []string // add-ons by name, such as rke2-coredns
}

// prefix is what RKE2 puts before the names of its add-ons.
const prefix = "rke2-"

// Disabled returns every add-on that must not be there, for node/addons. One of the image's goes by RKE2's name of it and by
// that without its prefix.
func (p Params) Disabled() []string {
	disabled := slices.Clone(p.Disable)
	for _, name := range p.Disable {
		if !strings.HasPrefix(name, prefix) {
			disabled = append(disabled, prefix+name)
		}
	}
	if p.CNI != config.CNIFlannel {
		disabled = append(disabled, prefix+"flannel", prefix+"network-policy") // another network keeps policies itself, or not
	}
	slices.Sort(disabled)
	return slices.Compact(disabled)
}

// Render returns the manifests by the names of their files. All mistakes of all templates are told at once.
func Render(templates fs.FS, p Params) (map[string][]byte, error) {
	values := p.values()
	names, err := fs.Glob(templates, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list manifests: %w", err)
	}
	disabled := p.Disabled()
	out := map[string][]byte{}
	var problems []error
	for _, name := range names {
		addon := prefix + strings.TrimSuffix(path.Base(name), ".yaml")
		if slices.Contains(disabled, addon) {
			continue
		}
		content, err := fs.ReadFile(templates, name)
		if err != nil {
			return nil, fmt.Errorf("read manifest: %w", err)
		}
		filled, err := fill(name, content, values)
		if err != nil {
			problems = append(problems, err)
		}
		out[addon+".yaml"] = filled
	}
	return out, errors.Join(problems...)
}

func (p Params) values() map[string]string {
	values := map[string]string{
		"CLUSTER_CIDR": join(p.ClusterCIDR), "SERVICE_CIDR": join(p.ServiceCIDR), "NODE_PORTS": p.NodePorts.String(),
		"CLUSTER_DNS_ALL": join(p.ClusterDNS), "CLUSTER_DOMAIN": p.ClusterDomain,
		"FLANNEL_BACKEND": p.FlannelBackend,
		"ENABLE_IPV4":     "false", "CLUSTER_CIDR_IPV4": "0.0.0.0/0",
		"ENABLE_IPV6": "false", "CLUSTER_CIDR_IPV6": "::/0",
	}
	if p.FlannelBackend == config.FlannelWireGuard {
		values["FLANNEL_BACKEND"] = "wireguard" // k3s has one more way of that name, with a program of its own
	}
	if len(p.ClusterDNS) > 0 {
		values["CLUSTER_DNS"] = p.ClusterDNS[0].String()
	}
	for _, n := range p.ClusterCIDR {
		family := "IPV6"
		if n.Addr().Is4() {
			family = "IPV4"
		}
		values["ENABLE_"+family], values["CLUSTER_CIDR_"+family] = "true", n.String()
	}
	for name, reference := range p.Images {
		values["IMAGE_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = reference
	}
	return values
}

func join[T fmt.Stringer](all []T) string {
	var texts []string
	for _, v := range all {
		texts = append(texts, v.String())
	}
	return strings.Join(texts, ",")
}

// fill replaces ${NAME}. A value is plain text that needs no quotes in YAML, so one that could end its line or its
// scalar is refused.
func fill(name string, content []byte, values map[string]string) ([]byte, error) {
	variable := regexp.MustCompile(`\$\{([^}\n]*)\}?`)
	var problems []error
	var out bytes.Buffer
	number := 0
	for line := range bytes.Lines(content) {
		number++
		out.Write(variable.ReplaceAllFunc(line, func(match []byte) []byte {
			key := strings.TrimSuffix(strings.TrimPrefix(string(match), "${"), "}")
			value := values[key]
			switch {
			case !bytes.HasSuffix(match, []byte("}")):
				problems = append(problems, fmt.Errorf("%s: line %d: ${%s: has no closing brace", name, number, key))
			case value == "":
				problems = append(problems, fmt.Errorf("%s: line %d: ${%s}: no value is known; known are %s", name, number, key,
					strings.Join(slices.Sorted(maps.Keys(values)), ", ")))
			case strings.ContainsAny(value, "\x00\r\n\"'{}#& "):
				problems = append(problems, fmt.Errorf("%s: line %d: ${%s}: value %q has a character that a manifest cannot take", name, number, key, value))
			}
			return []byte(value)
		}))
	}
	return out.Bytes(), errors.Join(problems...)
}
