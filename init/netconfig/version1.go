package netconfig

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"keelson/init/userdata"
)

// version1 reads cloud-init's older format.
func (p *parser) version1(pairs []userdata.Pair) {
	for _, pair := range pairs {
		switch pair.Name {
		case "version":
		case "config":
			for i, item := range p.Items(pair.Value, "config") {
				p.entry(item, fmt.Sprintf("config[%d]", i))
			}
		default:
			p.Unknown(pair, "", []string{"version", "config"})
		}
	}
}

func (p *parser) entry(item *yaml.Node, at string) {
	pairs := p.Pairs(item, at)
	kind := ""
	for _, pair := range pairs {
		if pair.Name == "type" {
			kind = pair.Value.Value
		}
	}
	switch kind {
	case "physical", KindBond, Bridge, VLAN:
		if kind == "physical" {
			kind = Ethernet
		}
		p.link(pairs, at, kind)
	case "nameserver":
		for _, pair := range pairs {
			key := userdata.Join(at, pair.Name)
			switch pair.Name {
			case "address":
				p.plan.Nameservers = append(p.plan.Nameservers, p.addrs(pair.Value, key)...)
			case "search":
				p.plan.Search = append(p.plan.Search, p.words(pair.Value, key)...)
			case "type", "interface":
			default:
				p.Unknown(pair, at, []string{"address", "search", "interface"})
			}
		}
	case "route":
		if r, ok := p.route(pairs, at, item.Line); ok {
			p.plan.Routes = append(p.plan.Routes, r)
		}
	case "loopback":
	case "infiniband":
		p.refuse(item, at, kind+"s")
	default:
		p.Bad(item, userdata.Join(at, "type"), "%.40q is not a type; use physical, bond, bridge, vlan, nameserver or route", kind)
	}
}

// link reads a card, or something made of cards.
func (p *parser) link(pairs []userdata.Pair, at, kind string) {
	l := Link{Kind: kind, AcceptRA: true, at: at, line: pairs[0].Key.Line}
	if kind == KindBond {
		l.Bond.MIIMonitor = DefaultMIIMonitor
	}
	for _, pair := range pairs {
		key := userdata.Join(at, pair.Name)
		switch pair.Name {
		case "type":
		case "name":
			l.ID = p.name(pair.Value, key)
		case "mac_address":
			l.Match.MAC = p.mac(pair.Value, key)
		case "mtu":
			l.MTU, _ = p.Int(pair.Value, key, 576, 65535)
		case "accept-ra":
			l.AcceptRA, _ = p.Bool(pair.Value, key)
		case "subnets":
			for i, item := range p.Items(pair.Value, key) {
				p.subnet(item, fmt.Sprintf("%s[%d]", key, i), &l)
			}
		case "keep_configuration":
		default:
			if !p.made1(pair, key, &l) {
				p.Unknown(pair, at, names1(kind))
			}
		}
	}
	if kind != Ethernet {
		l.MAC, l.Match = l.Match.MAC, Match{Name: l.ID}
		if l.ID == "" || kind == VLAN && (l.VLAN == 0 || l.Parent == "") {
			p.problem(l.line, at, "needs a name, and a vlan its vlan_id and vlan_link")
			return
		}
		p.plan.Links = append(p.plan.Links, l)
		return
	}
	if l.Match.MAC == "" {
		l.Match.Name = l.ID
	} else {
		l.SetName = l.ID
	}
	if l.Match == (Match{}) {
		p.Bad(pairs[0].Key, at, "has neither name nor mac_address; add one of them")
		return
	}
	p.plan.Links = append(p.plan.Links, l)
}

func (p *parser) subnet(item *yaml.Node, at string, l *Link) {
	pairs := p.Pairs(item, at)
	netmask := ""
	for _, pair := range pairs {
		if pair.Name == "netmask" {
			netmask = pair.Value.Value
		}
	}
	static, addressed := false, false
	for _, pair := range pairs {
		key := userdata.Join(at, pair.Name)
		switch pair.Name {
		case "type":
			switch pair.Value.Value {
			case "dhcp", "dhcp4":
				l.DHCP4 = true
			case "dhcp6", "ipv6_dhcpv6-stateful", "ipv6_dhcpv6-stateless":
				l.DHCP6 = true
			case "static", "static6":
				static = true
			case "manual", "ipv6_slaac":
			default:
				p.Bad(pair.Value, key, "%.40q is not a kind of subnet; use dhcp, dhcp6 or static", pair.Value.Value)
			}
		case "address":
			if v, ok := p.prefix(pair.Value, key, netmask); ok {
				l.Addresses = append(l.Addresses, v)
			}
			addressed = true
		case "gateway":
			if via, ok := p.addr(pair.Value, key); ok {
				l.Routes = append(l.Routes, Route{To: defaultRoute(via), Via: via})
			}
		case "dns_nameservers":
			l.Nameservers = append(l.Nameservers, p.addrs(pair.Value, key)...)
		case "dns_search":
			l.Search = append(l.Search, p.words(pair.Value, key)...)
		case "routes":
			for i, r := range p.Items(pair.Value, key) {
				sub := fmt.Sprintf("%s[%d]", key, i)
				if route, ok := p.routeItem(r, sub); ok {
					l.Routes = append(l.Routes, route)
				}
			}
		case "mtu": // of the link, where that has none of its own (cloud-init, net/sysconfig.py and others)
			if v, ok := p.Int(pair.Value, key, 576, 65535); ok && l.MTU == 0 {
				l.MTU = v
			}
		case "netmask", "broadcast", "control", "ipv4", "ipv6", "metric":
		default:
			p.Unknown(pair, at, []string{"type", "address", "netmask", "gateway", "dns_nameservers", "dns_search", "mtu", "routes"})
		}
	}
	if static && !addressed {
		p.Bad(item, at, "is static without an address; add one like 192.0.2.10/24")
	}
}

// names1 are the keys that each kind of link has, in version 1.
func names1(kind string) []string {
	common := []string{"name", "mac_address", "mtu", "accept-ra", "subnets"}
	switch kind {
	case KindBond:
		return append(common, "bond_interfaces", "params")
	case Bridge:
		return append(common, "bridge_interfaces", "params")
	case VLAN:
		return append(common, "vlan_id", "vlan_link")
	}
	return common
}
