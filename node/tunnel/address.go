package tunnel

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// maxHost is the length of the longest host name (RFC 1035 2.3.4, without the final dot).
const maxHost = 253

// ParseAddress reads host:port as CONNECT and remotedialer carry it: a name or an address (of IPv6 in brackets, without
// a zone) and a port from 1 to 65535.
func ParseAddress(s string) (host string, port uint16, err error) {
	if len(s) > maxHost+len(":65535") {
		return "", 0, fmt.Errorf("address of %d characters is too long", len(s))
	}
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("address %q: write host:port", s)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || text[0] == '0' || text[0] == '+' {
		return "", 0, fmt.Errorf("address %q: the port is not a number from 1 to 65535", s)
	}
	bracketed := strings.HasPrefix(s, "[")
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" || ip.Is4() == bracketed {
			return "", 0, fmt.Errorf("address %q: not an address that can be dialled from everywhere", s)
		}
		return host, uint16(n), nil
	}
	if bracketed || !isName(host) {
		return "", 0, fmt.Errorf("address %q: the host is neither a name nor an address", s)
	}
	return host, uint16(n), nil
}

// isName tells whether s can be the name of a node or of a host (RFC 1123 2.1, and the underscore that DNS allows).
func isName(s string) bool {
	if s == "" || len(s) > maxHost || s[0] == '-' || s[0] == '.' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return true
}

// Loopback allows TCP to the given ports on 127.0.0.1 and ::1, written so: what agents of RKE2 allow in every mode
// (k3s pkg/agent/tunnel, isKubeletOrStreamPort). Names are not allowed, for they can come to mean another machine.
func Loopback(ports ...uint16) func(network, address string) bool {
	return func(network, address string) bool {
		host, port, err := ParseAddress(address)
		if err != nil || network != "tcp" || host != "127.0.0.1" && host != "::1" {
			return false
		}
		for _, p := range ports {
			if p == port {
				return true
			}
		}
		return false
	}
}
