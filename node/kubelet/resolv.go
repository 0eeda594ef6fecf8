package kubelet

import (
	"net/netip"
	"strings"
)

// metadataServer is the one link-local name server that pods can reach: that of several clouds.
const metadataServer = "169.254.169.254"

// UsableResolvConf tells whether pods may get this resolv.conf: it names a server, and each one can be reached from
// a pod. A server on loopback or with a link-local address is another one inside a pod (k3s pkg/agent/config,
// isValidResolvConf).
func UsableResolvConf(content []byte) bool {
	found := false
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		address, err := netip.ParseAddr(fields[1])
		if err != nil || !address.IsGlobalUnicast() && fields[1] != metadataServer {
			return false
		}
		found = true
	}
	return found
}

// NoResolvConf is for a machine that has no server to give to pods. RKE2 would name public servers of others; this
// names an address that is nobody's (RFC 5737), so that CoreDNS runs, answers for the cluster and fails for the rest.
func NoResolvConf() []byte {
	return []byte("# no name server is known on this machine\nnameserver 192.0.2.1\n")
}
