package netconfig

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"keelson/init/userdata"
)

// version2 reads netplan's format as cloud-init takes it.
func (p *parser) version2(pairs []userdata.Pair) {
	for _, pair := range pairs {
		switch pair.Name {
		case "version":
		case "renderer":
			p.Note(pair.Key, "renderer", "has no effect: init itself sets up the network (passed over)")
		case "ethernets":
			for _, e := range p.Pairs(pair.Value, "ethernets") {
				p.ethernet(e)
			}
		case "bonds", "bridges", "vlans":
			for _, e := range p.Pairs(pair.Value, pair.Name) {
				p.made(pair.Name, strings.TrimSuffix(pair.Name, "s"), e)
			}
		case "tunnels", "wifis", "vrfs", "modems", "dummy-devices", "virtual-ethernets":
			p.refuse(pair.Key, pair.Name, pair.Name)
		default:
			p.Unknown(pair, "", []string{"version", "ethernets", "bonds", "bridges", "vlans"})
		}
	}
}

func (p *parser) ethernet(e userdata.Pair) {
	at := userdata.Join("ethernets", e.Name)
	l := Link{ID: e.Name, AcceptRA: true, at: at, line: e.Key.Line}
	for _, pair := range p.Pairs(e.Value, at) {
		key := userdata.Join(at, pair.Name)
		switch pair.Name {
		case "match":
			p.match(pair, key, &l.Match)
		case "set-name":
			l.SetName = p.name(pair.Value, key)
		default:
			p.common(pair, at, Ethernet, &l)
		}
	}
	if l.Match == (Match{}) {
		l.Match.Name = p.name(e.Key, at)
	}
	p.plan.Links = append(p.plan.Links, l)
}

// common reads a key that every kind of link has.
func (p *parser) common(pair userdata.Pair, at, kind string, l *Link) {
	key := userdata.Join(at, pair.Name)
	switch pair.Name {
	case "dhcp4":
		l.DHCP4, _ = p.Bool(pair.Value, key)
	case "dhcp6":
		l.DHCP6, _ = p.Bool(pair.Value, key)
	case "accept-ra":
		l.AcceptRA, _ = p.Bool(pair.Value, key)
	case "addresses":
		for i, item := range p.Items(pair.Value, key) {
			if v, ok := p.prefix(item, fmt.Sprintf("%s[%d]", key, i), ""); ok {
				l.Addresses = append(l.Addresses, v)
			}
		}
	case "gateway4", "gateway6":
		if via, ok := p.addr(pair.Value, key); ok {
			l.Routes = append(l.Routes, Route{To: defaultRoute(via), Via: via})
		}
	case "nameservers":
		p.nameservers(pair, key, l)
	case "routes":
		for i, item := range p.Items(pair.Value, key) {
			if r, ok := p.routeItem(item, fmt.Sprintf("%s[%d]", key, i)); ok {
				l.Routes = append(l.Routes, r)
			}
		}
	case "mtu":
		l.MTU, _ = p.Int(pair.Value, key, 576, 65535)
	case "dhcp4-overrides":
		l.DHCP4Overrides, l.Metric = p.overrides(pair, key)
	case "dhcp6-overrides": // routes of IPv6 come from routers, not from DHCP
		l.DHCP6Overrides, _ = p.overrides(pair, key)
	case "optional", "optional-addresses", "critical", "dhcp-identifier", "wakeonlan", "ipv6-privacy", "link-local", "emit-lldp":
		// What these ask for is so anyway, or changes nothing that a node needs.
	default:
		p.Unknown(pair, at, names2(kind))
	}
}

func (p *parser) match(pair userdata.Pair, key string, m *Match) {
	for _, f := range p.Pairs(pair.Value, key) {
		at := userdata.Join(key, f.Name)
		switch f.Name {
		case "name":
			m.Name = p.pattern(f.Value, at)
		case "macaddress":
			m.MAC = p.mac(f.Value, at)
		case "driver":
			m.Driver = p.pattern(f.Value, at)
		default:
			p.Unknown(f, key, []string{"name", "macaddress", "driver"})
		}
	}
}

func (p *parser) nameservers(pair userdata.Pair, key string, l *Link) {
	for _, f := range p.Pairs(pair.Value, key) {
		at := userdata.Join(key, f.Name)
		switch f.Name {
		case "addresses":
			l.Nameservers = append(l.Nameservers, p.addrs(f.Value, at)...)
		case "search":
			l.Search = append(l.Search, p.words(f.Value, at)...)
		default:
			p.Unknown(f, key, []string{"addresses", "search"})
		}
	}
}

func (p *parser) routeItem(item *yaml.Node, at string) (Route, bool) {
	before := len(p.Problems)
	pairs := p.Pairs(item, at)
	if len(p.Problems) > before {
		return Route{}, false
	}
	return p.route(pairs, at, item.Line)
}

// route reads one entry; the same words serve version 1 where they agree.
func (p *parser) route(pairs []userdata.Pair, at string, line int) (Route, bool) {
	var r Route
	var toDefault, hasTo bool
	netmask := ""
	for _, f := range pairs {
		if f.Name == "netmask" {
			netmask = f.Value.Value
		}
	}
	ok := true
	for _, f := range pairs {
		key, good := userdata.Join(at, f.Name), true
		switch f.Name {
		case "to", "destination", "network":
			r.To, toDefault, good = p.network(f.Value, key, netmask)
			hasTo = true
		case "via", "gateway":
			r.Via, good = p.addr(f.Value, key)
		case "metric":
			r.Metric, good = p.Int(f.Value, key, 0, 1<<31-1)
		case "on-link":
			r.OnLink, good = p.Bool(f.Value, key)
		case "netmask", "type", "id":
		default:
			p.Unknown(f, at, []string{"to", "via", "metric", "on-link"})
			good = false
		}
		ok = ok && good
	}
	if !ok {
		return r, false
	}
	if toDefault && r.Via.IsValid() {
		r.To = defaultRoute(r.Via)
	}
	if !hasTo || !r.To.IsValid() || r.Via.IsValid() && r.Via.Is4() != r.To.Addr().Is4() {
		p.problem(line, at, "is no route: it needs to and via, both of one address family")
		return r, false
	}
	return r, true
}

func (p *parser) problem(line int, key, text string) {
	p.Problems = append(p.Problems, userdata.Problem{Source: p.Source, Line: line, Key: key, Text: text, Fatal: true})
}
