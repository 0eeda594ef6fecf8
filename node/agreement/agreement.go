// Package agreement is what all servers of a cluster must be set alike: the networks, the DNS, how Secrets are encrypted
// and how kube-apiserver reaches kubelets. A server that differs would take the cluster apart, so it does not join.
//
// It takes the settings of this server and the document that another serves at /v1-rke2/config, and names the keys that
// differ. It neither fetches nor decides: node/server does both. Fields are those of k3s's CriticalControlArgs
// (pkg/daemons/config/types.go), under their Go names, which is what stands in the document.
package agreement

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"

	"keelson/node/config"
)

// Critical are the settings. A tag gives the key of config.yaml.
type Critical struct {
	ClusterDNSs           []net.IP     `key:"cluster-dns"`
	ClusterIPRanges       []*net.IPNet `key:"cluster-cidr"`
	ClusterDNS            net.IP       `key:"cluster-dns"`
	ClusterDomain         string       `key:"cluster-domain"`
	ClusterIPRange        *net.IPNet   `key:"cluster-cidr"`
	DisableCCM            bool         `key:"disable-cloud-controller"`
	DisableHelmController bool         `key:"disable-helm-controller"`
	DisableNPC            bool         `key:"disable-network-policy"`
	DisableServiceLB      bool         `key:"disable-service-lb"`
	EncryptSecrets        bool         `key:"secrets-encryption"`
	EncryptProvider       string       `key:"secrets-encryption-provider"`
	EmbeddedRegistry      bool         `key:"embedded-registry"`
	FlannelBackend        string       `key:"flannel-backend"`
	FlannelIPv6Masq       bool         `key:"flannel-ipv6-masq"`
	FlannelExternalIP     bool         `key:"flannel-external-ip"`
	EgressSelectorMode    string       `key:"egress-selector-mode"`
	ServiceIPRange        *net.IPNet   `key:"service-cidr"`
	ServiceIPRanges       []*net.IPNet `key:"service-cidr"`
	SupervisorMetrics     bool         `key:"supervisor-metrics"`

	// PodNetworkBackend is ours alone, for FlannelBackend says the same in every cluster of RKE2: two servers that differ
	// would write two configurations of one network in turn. Empty without flannel.
	PodNetworkBackend string `json:",omitempty" key:"flannel-backend"`
}

// Of takes the settings out of a resolved configuration. What RKE2 fixes for every server, Keelson says alike: flannel
// is an add-on and not the supervisor's own, there is no built-in network policy controller, and Secrets are encrypted
// (rancher/rke2 pkg/cli/defaults, pkg/rke2).
func Of(c config.Config) Critical {
	critical := Critical{
		ClusterDomain:      c.ClusterDomain,
		DisableCCM:         c.DisableCloudController,
		DisableNPC:         true,
		DisableServiceLB:   true,
		EncryptSecrets:     true,
		EncryptProvider:    c.SecretsEncryptionProvider,
		EmbeddedRegistry:   c.EmbeddedRegistry,
		FlannelBackend:     "none",
		EgressSelectorMode: c.EgressSelectorMode,
		SupervisorMetrics:  c.SupervisorMetrics,
	}
	if c.CNI == config.CNIFlannel {
		critical.PodNetworkBackend = c.FlannelBackend
	}
	for _, a := range c.ClusterDNS {
		critical.ClusterDNSs = append(critical.ClusterDNSs, a.AsSlice())
	}
	critical.ClusterIPRanges, critical.ServiceIPRanges = networks(c.ClusterCIDR), networks(c.ServiceCIDR)
	if len(critical.ClusterDNSs) > 0 {
		critical.ClusterDNS = critical.ClusterDNSs[0]
	}
	if len(critical.ClusterIPRanges) > 0 {
		critical.ClusterIPRange = critical.ClusterIPRanges[0]
	}
	if len(critical.ServiceIPRanges) > 0 {
		critical.ServiceIPRange = critical.ServiceIPRanges[0]
	}
	return critical
}

func networks(all []netip.Prefix) []*net.IPNet {
	var out []*net.IPNet
	for _, p := range all {
		p = p.Masked()
		out = append(out, &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
	}
	return out
}

// Difference is one key that this server and the cluster set differently.
type Difference struct{ Key, Ours, Theirs string }

// ErrDiffers is a server that would not fit its cluster.
type ErrDiffers struct{ All []Difference }

// Error names each key with both values.
func (e *ErrDiffers) Error() string {
	var parts []string
	for _, d := range e.All {
		parts = append(parts, fmt.Sprintf("%s is %s here and %s in the cluster", d.Key, d.Ours, d.Theirs))
	}
	return "critical configuration value mismatch between servers: " + strings.Join(parts, "; ") + "; set them as the cluster's other servers do"
}

// Check compares this server's settings with the document of another. What the other leaves open (an older server
// knows neither mode nor provider) agrees with anything. The error is an *ErrDiffers, or says that there is no document.
func Check(ours Critical, document []byte) error {
	var theirs Critical
	if err := json.Unmarshal(document, &theirs); err != nil {
		return fmt.Errorf("read the cluster's settings: %w", err)
	}
	if theirs.ClusterDomain == "" && theirs.ClusterIPRange == nil {
		return errors.New("read the cluster's settings: the answer holds none; is it a server of a cluster that answers there?")
	}
	var all []Difference
	seen := map[string]bool{}
	a, b := reflect.ValueOf(ours), reflect.ValueOf(theirs)
	for i := range a.NumField() {
		field := a.Type().Field(i)
		key, x, y := field.Tag.Get("key"), text(a.Field(i)), text(b.Field(i))
		if x == y || seen[key] || y == `""` && mayBeOpen(field.Name) {
			continue
		}
		seen[key] = true
		all = append(all, Difference{Key: key, Ours: x, Theirs: y})
	}
	if len(all) > 0 {
		return &ErrDiffers{All: all}
	}
	return nil
}

// mayBeOpen tells which settings another server need not know of.
func mayBeOpen(field string) bool {
	return field == "EgressSelectorMode" || field == "EncryptProvider" || field == "PodNetworkBackend"
}

// text writes a value as a person would in config.yaml.
func text(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case string:
		return fmt.Sprintf("%q", x)
	case net.IP:
		return x.String()
	case *net.IPNet:
		if x == nil {
			return "nothing"
		}
		return x.String()
	case []net.IP:
		return list(x, net.IP.String)
	case []*net.IPNet:
		return list(x, (*net.IPNet).String)
	default:
		return fmt.Sprint(x)
	}
}

func list[T any](all []T, text func(T) string) string {
	if len(all) == 0 {
		return "nothing"
	}
	var parts []string
	for _, v := range all {
		parts = append(parts, text(v))
	}
	return strings.Join(parts, ",")
}
