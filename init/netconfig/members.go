package netconfig

import "keelson/init/userdata"

// names2 are the keys that each kind of link has, in version 2.
func names2(kind string) []string {
	common := []string{"dhcp4", "dhcp6", "dhcp4-overrides", "dhcp6-overrides", "accept-ra", "addresses",
		"gateway4", "gateway6", "nameservers", "routes", "mtu", "optional"}
	switch kind {
	case KindBond, Bridge:
		return append([]string{"interfaces", "parameters", "macaddress"}, common...)
	case VLAN:
		return append([]string{"id", "link", "macaddress"}, common...)
	}
	return append([]string{"match", "set-name"}, common...)
}

// made reads a bond, a bridge or a VLAN of version 2.
func (p *parser) made(section, kind string, e userdata.Pair) {
	at := userdata.Join(section, e.Name)
	l := Link{ID: p.name(e.Key, at), Kind: kind, AcceptRA: true, at: at, line: e.Key.Line}
	l.Match.Name = l.ID
	if kind == KindBond {
		l.Bond.MIIMonitor = DefaultMIIMonitor
	}
	for _, pair := range p.Pairs(e.Value, at) {
		key := userdata.Join(at, pair.Name)
		switch {
		case pair.Name == "interfaces" && kind != VLAN:
			l.Members = p.Strings(pair.Value, key)
		case pair.Name == "parameters" && kind == KindBond:
			p.bond(pair.Value, key, &l.Bond)
		case pair.Name == "parameters" && kind == Bridge:
			p.bridge(pair.Value, key, &l.Bridge)
		case pair.Name == "id" && kind == VLAN:
			l.VLAN, _ = p.Int(pair.Value, key, 1, 4094)
		case pair.Name == "link" && kind == VLAN:
			l.Parent, _ = p.String(pair.Value, key)
		case pair.Name == "macaddress":
			l.MAC = p.mac(pair.Value, key)
		default:
			p.common(pair, at, kind, &l)
		}
	}
	if kind == VLAN && (l.VLAN == 0 || l.Parent == "") && len(p.Problems) == 0 {
		p.Bad(e.Key, at, "needs id and link")
	}
	p.plan.Links = append(p.plan.Links, l)
}

// made1 reads the keys of version 1 that bonds, bridges and VLANs have beside
// those of a card; false for a key that is not one of theirs.
func (p *parser) made1(pair userdata.Pair, key string, l *Link) bool {
	switch {
	case l.Kind == KindBond && pair.Name == "bond_interfaces", l.Kind == Bridge && pair.Name == "bridge_interfaces":
		l.Members = p.Strings(pair.Value, key)
	case l.Kind == KindBond && pair.Name == "params":
		p.bond(pair.Value, key, &l.Bond)
	case l.Kind == Bridge && pair.Name == "params":
		p.bridge(pair.Value, key, &l.Bridge)
	case l.Kind == VLAN && pair.Name == "vlan_id":
		l.VLAN, _ = p.Int(pair.Value, key, 1, 4094)
	case l.Kind == VLAN && pair.Name == "vlan_link":
		l.Parent, _ = p.String(pair.Value, key)
	default:
		return false
	}
	return true
}

// overrides reads what a link takes of a DHCP answer.
func (p *parser) overrides(pair userdata.Pair, key string) (o Overrides, metric int) {
	known := []string{"use-dns", "use-domains", "use-hostname", "use-mtu", "use-ntp", "use-routes", "send-hostname", "hostname", "route-metric"}
	for _, f := range p.Pairs(pair.Value, key) {
		at := userdata.Join(key, f.Name)
		not := func(to *bool) {
			use, ok := p.Bool(f.Value, at)
			*to = ok && !use
		}
		switch f.Name {
		case "use-dns":
			not(&o.IgnoreDNS)
		case "use-domains":
			not(&o.IgnoreDomains)
		case "use-mtu":
			not(&o.IgnoreMTU)
		case "use-ntp":
			not(&o.IgnoreNTP)
		case "use-routes":
			not(&o.IgnoreRoutes)
		case "send-hostname":
			not(&o.Anonymous)
		case "use-hostname": // a node is never named by DHCP
			p.Bool(f.Value, at)
		case "hostname":
			o.Hostname, _ = p.String(f.Value, at)
		case "route-metric":
			metric, _ = p.Int(f.Value, at, 0, 1<<31-1)
		default:
			p.Unknown(f, key, known)
		}
	}
	return o, metric
}
