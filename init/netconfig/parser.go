package netconfig

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"keelson/init/userdata"
)

type parser struct {
	userdata.Reader
	plan Plan
}

// refuse names a kind of link that is not made.
func (p *parser) refuse(n *yaml.Node, key, what string) {
	p.Bad(n, key, "%s are not made here; describe ethernets, bonds, bridges and vlans", what)
}

// prefix reads an address with its length, which netmask may give as well.
func (p *parser) prefix(n *yaml.Node, key, netmask string) (netip.Prefix, bool) {
	s, ok := p.String(n, key)
	if !ok {
		return netip.Prefix{}, false
	}
	if !strings.Contains(s, "/") && netmask != "" {
		s += "/" + maskLength(netmask)
	}
	v, err := netip.ParsePrefix(s)
	if err != nil || v.Addr().Is4In6() || v.Addr().IsMulticast() || v.Addr().IsUnspecified() {
		p.Bad(n, key, "%.60q is not an address with its length; write it like 192.0.2.10/24", s)
		return netip.Prefix{}, false
	}
	return v, true
}

// network reads the destination of a route.
func (p *parser) network(n *yaml.Node, key, netmask string) (v netip.Prefix, isDefault, ok bool) {
	s, ok := p.String(n, key)
	if !ok {
		return v, false, false
	}
	if s == "default" {
		return v, true, true
	}
	if !strings.Contains(s, "/") && netmask != "" {
		s += "/" + maskLength(netmask)
	}
	v, err := netip.ParsePrefix(s)
	if err != nil {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			p.Bad(n, key, "%.60q is not a network; write default, or one like 10.0.0.0/8", s)
			return v, false, false
		}
		v = netip.PrefixFrom(addr, addr.BitLen())
	}
	if v.Addr().Is4In6() { // the kernel would read another network
		p.Bad(n, key, "%.60q is not a network; write default, or one like 10.0.0.0/8", s)
		return v, false, false
	}
	return v.Masked(), false, true
}

func (p *parser) addr(n *yaml.Node, key string) (netip.Addr, bool) {
	s, ok := p.String(n, key)
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() {
		p.Bad(n, key, "%.60q is not an IP address", s)
		return netip.Addr{}, false
	}
	return a, true
}

// addrs reads a list of addresses, or a single one as version 1 allows.
func (p *parser) addrs(n *yaml.Node, key string) (out []netip.Addr) {
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		if a, ok := p.addr(n, key); ok {
			return []netip.Addr{a}
		}
		return nil
	}
	for i, item := range p.Items(n, key) {
		if a, ok := p.addr(item, fmt.Sprintf("%s[%d]", key, i)); ok {
			out = append(out, a)
		}
	}
	return out
}

// words reads search domains: a list or one text with blanks.
func (p *parser) words(n *yaml.Node, key string) (out []string) {
	var all []string
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		all = strings.Fields(n.Value)
	} else {
		all = p.Strings(n, key)
	}
	for _, s := range all {
		if !regexp.MustCompile(`^[A-Za-z0-9_.-]{1,253}$`).MatchString(s) {
			p.Bad(n, key, "%.60q is not a domain", s)
			continue
		}
		out = append(out, s)
	}
	return out
}

func (p *parser) mac(n *yaml.Node, key string) string {
	s, ok := p.String(n, key)
	if !ok {
		return ""
	}
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		p.Bad(n, key, "%.60q is not a MAC address; write it in quotes, like \"52:54:00:12:34:56\"", s)
		return ""
	}
	return hw.String()
}

// name reads the name of an interface (include/uapi/linux/if.h: 15 bytes).
func (p *parser) name(n *yaml.Node, key string) string {
	s, ok := p.String(n, key)
	if ok && !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`).MatchString(s) {
		p.Bad(n, key, "%.60q is not the name of an interface; use at most 15 letters and digits", s)
		return ""
	}
	return s
}

func (p *parser) pattern(n *yaml.Node, key string) string {
	s, ok := p.String(n, key)
	if !ok {
		return ""
	}
	s = strings.ReplaceAll(s, "[!", "[^") // netplan's patterns are fnmatch(3)'s, path.Match denies by ^
	if _, err := path.Match(s, ""); err != nil || s == "" {
		p.Bad(n, key, "%.60q is not a pattern; use letters, *, ? and [a-z]", s)
		return ""
	}
	return s
}

func maskLength(netmask string) string {
	if a, err := netip.ParseAddr(netmask); err == nil {
		ones, bits := net.IPMask(a.AsSlice()).Size()
		if bits > 0 {
			return fmt.Sprint(ones)
		}
	}
	return netmask // a plain length, or nonsense that ParsePrefix refuses
}

// defaultRoute is the whole of one address family.
func defaultRoute(via netip.Addr) netip.Prefix {
	if via.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}
