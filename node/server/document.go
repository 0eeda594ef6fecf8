package server

import (
	"strings"

	utilnet "k8s.io/apimachinery/pkg/util/net"

	"keelson/node/agreement"
	"keelson/node/config"
)

// document is what /v1-rke2/config answers: the settings that servers must agree on, and what an agent reads of the
// rest, under the names of k3s's fields (k3s pkg/daemons/config/types.go, Control; pkg/agent/config reads them).
//
// Every agent may ask for it, so it holds nothing that is or may hold a secret: no token, no pre-shared key that
// protects anything, and no Extra...Args, which people put passwords and keys of webhooks and clouds in. An RKE2 agent
// reads the key (IPSECPSK) for the embedded registry alone, and none of the arguments.
type document struct {
	agreement.Critical
	AdvertisePort            int
	AdvertiseIP              string
	HTTPSPort                int
	SupervisorPort           int
	APIServerPort            int
	APIServerBindAddress     string
	ServiceNodePortRange     *utilnet.PortRange
	DataDir                  string
	Disables                 map[string]bool
	Skips                    map[string]bool
	DisableAgent             bool
	DisableAPIServer         bool
	DisableControllerManager bool
	DisableETCD              bool
	DisableKubeProxy         bool
	DisableScheduler         bool
	MinTLSVersion            string
	CipherSuites             []string
	SANs                     []string
	SANSecurity              bool
	PrivateIP                string
	ServerNodeName           string
	// KubernetesVersion and CNI are ours alone: servers that join hold their own version against the one, agents write
	// their network as the other says. RKE2 reads neither.
	KubernetesVersion string `json:",omitempty"`
	CNI               string `json:",omitempty"`
	// IPSECPSK is there with the embedded registry alone, and of no use to anything of ours (preSharedKey).
	IPSECPSK string `json:",omitempty"`
}

// documentOf takes the document out of resolved settings.
func documentOf(c config.Config, kubernetes string) document {
	d := document{
		Critical:      agreement.Of(c),
		AdvertisePort: 6443, HTTPSPort: 6443, SupervisorPort: 9345, APIServerPort: 6443, APIServerBindAddress: c.EveryAddress(),
		ServiceNodePortRange: &utilnet.PortRange{Base: int(c.ServiceNodePortRange.First), Size: int(c.ServiceNodePortRange.Last) - int(c.ServiceNodePortRange.First) + 1},
		DataDir:              c.DataDir,
		Disables:             map[string]bool{},
		Skips:                map[string]bool{},
		DisableKubeProxy:     c.DisableKubeProxy,
		DisableScheduler:     c.DisableScheduler,
		DisableETCD:          c.DisableEtcd, DisableAPIServer: c.DisableAPIServer, DisableControllerManager: c.DisableControllerManager,
		MinTLSVersion:     flagOf(c.APIServer.Args, "tls-min-version"),
		CipherSuites:      []string{},
		SANs:              c.TLSSAN,
		SANSecurity:       true,
		ServerNodeName:    c.NodeName,
		KubernetesVersion: kubernetes,
		CNI:               c.CNI,
	}
	if c.AdvertiseAddress.IsValid() {
		d.AdvertiseIP = c.AdvertiseAddress.String()
	}
	if len(c.NodeIP) > 0 {
		d.PrivateIP = c.NodeIP[0].String()
	}
	for _, name := range c.Disable {
		d.Disables[name] = true
	}
	if suites := flagOf(c.APIServer.Args, "tls-cipher-suites"); suites != "" {
		d.CipherSuites = strings.Split(suites, ",")
	}
	return d
}

// flagOf is the value that kube-apiserver-arg gives a flag, the last one as kube-apiserver takes it. These two flags
// alone are told: RKE2's kubelets follow them, and they are in every handshake.
func flagOf(args []string, name string) string {
	value := ""
	for _, arg := range args {
		if v, ok := strings.CutPrefix(strings.TrimLeft(arg, "-"), name+"="); ok {
			value = v
		}
	}
	return value
}
