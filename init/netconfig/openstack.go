package netconfig

import (
	"fmt"
	"net/netip"

	"go.yaml.in/yaml/v3"

	"keelson/init/userdata"
)

// openstack reads network_data.json (docs.openstack.org/nova, "Metadata
// service", and nova/virt/netutils.py). JSON is YAML, so that mistakes have
// their line here too. False where the document is something else.
func (p *parser) openstack(pairs []userdata.Pair) bool {
	at := map[string]*yaml.Node{}
	for _, pair := range pairs {
		at[pair.Name] = pair.Value
	}
	if at["version"] != nil || at["links"] == nil || at["networks"] == nil {
		return false
	}
	links := map[string]*Link{}
	var order []string
	for i, item := range p.Items(at["links"], "links") {
		if id, l := p.openstackLink(item, fmt.Sprintf("links[%d]", i)); l != nil && links[id] == nil {
			links[id], order = l, append(order, id)
		}
	}
	for i, item := range p.Items(at["networks"], "networks") {
		p.openstackNetwork(item, fmt.Sprintf("networks[%d]", i), links)
	}
	for _, id := range order {
		p.plan.Links = append(p.plan.Links, *links[id])
	}
	named(p.plan.Links)
	if services := at["services"]; services != nil && !isEmpty(services) {
		p.plan.Nameservers = append(p.plan.Nameservers, p.services(services, "services")...)
	}
	return true
}

func isEmpty(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func (p *parser) openstackLink(item *yaml.Node, at string) (id string, l *Link) {
	l = &Link{AcceptRA: true, at: at, line: item.Line}
	kind := ""
	for _, pair := range p.Pairs(item, at) {
		key := userdata.Join(at, pair.Name)
		switch pair.Name {
		case "id":
			id, _ = p.String(pair.Value, key)
		case "type":
			if !isEmpty(pair.Value) { // Nova writes null where its network driver names no kind
				kind, _ = p.String(pair.Value, key)
			}
		case "ethernet_mac_address":
			l.Match.MAC = p.mac(pair.Value, key)
		case "bond_links":
			l.Members = p.Strings(pair.Value, key)
		case "bond_mode":
			l.Bond.Mode = p.choice(pair.Value, key, bondModes())
		case "bond_miimon":
			l.Bond.MIIMonitor, _ = p.Int(pair.Value, key, 0, 60_000)
		case "bond_xmit_hash_policy", "bond_hash_policy":
			l.Bond.HashPolicy = p.choice(pair.Value, key, hashPolicies())
		case "vlan_link":
			l.Parent, _ = p.String(pair.Value, key)
		case "vlan_id":
			l.VLAN, _ = p.Int(pair.Value, key, 1, 4094)
		case "vlan_mac_address":
			l.MAC = p.mac(pair.Value, key)
		case "mtu":
			if !isEmpty(pair.Value) {
				l.MTU, _ = p.Int(pair.Value, key, 576, 65535)
			}
		}
	}
	if id == "" {
		p.Bad(item, at, "has no id")
		return "", nil
	}
	l.ID = id
	switch kind {
	case KindBond, VLAN:
		l.Kind = kind
		if l.Match.MAC != "" {
			l.MAC = l.Match.MAC
		}
		if kind == KindBond && l.Bond.MIIMonitor == 0 {
			l.Bond.MIIMonitor = DefaultMIIMonitor
		}
		l.Match = Match{}
		return id, l
	}
	if l.Match.MAC == "" {
		p.Bad(item, at, "has no ethernet_mac_address")
		return "", nil
	}
	return id, l
}

// named gives what is made a name of its own: an id may be too long for one.
func named(links []Link) {
	count := map[string]int{}
	for i := range links {
		l := &links[i]
		switch {
		case l.Kind == KindBond:
			l.Match.Name = fmt.Sprintf("bond%d", count[l.Kind])
		case l.Kind == VLAN:
			l.Match.Name = fmt.Sprintf("vlan%d.%d", count[l.Kind], l.VLAN)
		}
		count[l.Kind]++
	}
}

func (p *parser) openstackNetwork(item *yaml.Node, at string, links map[string]*Link) {
	values := map[string]userdata.Pair{}
	for _, pair := range p.Pairs(item, at) {
		values[pair.Name] = pair
	}
	text := func(name string) string {
		if v, ok := values[name]; ok && v.Value.Kind == yaml.ScalarNode {
			return v.Value.Value
		}
		return ""
	}
	l := links[text("link")]
	if l == nil {
		p.Bad(item, userdata.Join(at, "link"), "names no link of this document")
		return
	}
	switch kind := text("type"); kind {
	case "ipv4_dhcp":
		l.DHCP4 = true
	case "ipv6_dhcp", "ipv6_dhcpv6-stateful":
		l.DHCP6 = true
	case "ipv6_slaac", "ipv6_dhcpv6-stateless":
	case "ipv4", "ipv6":
		address, ok := values["ip_address"]
		if !ok {
			p.Bad(item, at, "has no ip_address")
			return
		}
		if v, ok := p.prefix(address.Value, userdata.Join(at, "ip_address"), text("netmask")); ok {
			l.Addresses = append(l.Addresses, v)
		}
	default:
		p.Bad(item, userdata.Join(at, "type"), "%.40q is not a kind of network", kind)
		return
	}
	if v, ok := values["gateway"]; ok && !isEmpty(v.Value) {
		if via, ok := p.addr(v.Value, userdata.Join(at, "gateway")); ok {
			l.Routes = append(l.Routes, Route{To: defaultRoute(via), Via: via})
		}
	}
	if v, ok := values["routes"]; ok && !isEmpty(v.Value) {
		for i, r := range p.Items(v.Value, userdata.Join(at, "routes")) {
			if route, ok := p.openstackRoute(r, fmt.Sprintf("%s.routes[%d]", at, i)); ok {
				l.Routes = append(l.Routes, route)
			}
		}
	}
	if v, ok := values["services"]; ok && !isEmpty(v.Value) {
		l.Nameservers = append(l.Nameservers, p.services(v.Value, userdata.Join(at, "services"))...)
	}
}

// openstackRoute takes what a route of version 1 has; services beside it are
// the network's anyway.
func (p *parser) openstackRoute(item *yaml.Node, at string) (Route, bool) {
	var pairs []userdata.Pair
	for _, pair := range p.Pairs(item, at) {
		if pair.Name != "services" {
			pairs = append(pairs, pair)
		}
	}
	return p.route(pairs, at, item.Line)
}

// services gives the name servers of a list.
func (p *parser) services(n *yaml.Node, at string) (out []netip.Addr) {
	for i, item := range p.Items(n, at) {
		key := fmt.Sprintf("%s[%d]", at, i)
		var address *yaml.Node
		kind := ""
		for _, pair := range p.Pairs(item, key) {
			switch pair.Name {
			case "type":
				kind = pair.Value.Value
			case "address":
				address = pair.Value
			}
		}
		if kind == "dns" && address != nil {
			if a, ok := p.addr(address, userdata.Join(key, "address")); ok {
				out = append(out, a)
			}
		}
	}
	return out
}
