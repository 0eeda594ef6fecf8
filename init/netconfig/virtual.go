package netconfig

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"keelson/init/userdata"
)

// Kinds of links. An ethernet is found, the others are made.
const (
	Ethernet = ""
	KindBond = "bond"
	Bridge   = "bridge"
	VLAN     = "vlan"
)

// Bond is how the members of a bond share the traffic. Zero fields are the
// kernel's own values (Linux Documentation/networking/bonding.rst), but for
// MIIMonitor: without it a bond does not see that a cable is out.
type Bond struct {
	Mode            string // as the kernel names it, "active-backup"
	LACPRate        string // slow or fast
	HashPolicy      string
	Select          string // ad_select
	FailOverMAC     string
	PrimaryReselect string
	Primary         string // ID of a member
	MIIMonitor      int    // milliseconds
	UpDelay         int
	DownDelay       int
	MinLinks        int
	ARPInterval     int
	Notices         *int // gratuitous ARPs and NAs after another member has taken over
	ARPTargets      []netip.Addr
}

// BridgeSettings are those of a bridge; nil is the kernel's own value. Times are
// in seconds.
type BridgeSettings struct {
	STP                                     bool
	Priority, Forward, Hello, MaxAge, Aging *int
}

// DefaultMIIMonitor is how often members are looked at, in milliseconds.
const DefaultMIIMonitor = 100

// The words of both versions are the same but for their dress: version 1 says
// bond-xmit_hash_policy where version 2 says transmit-hash-policy.
func plainWord(name string) string {
	name = strings.ReplaceAll(name, "_", "-")
	for _, prefix := range []string{"bond-", "bridge-"} {
		name = strings.TrimPrefix(name, prefix)
	}
	if full, ok := map[string]string{
		"miimon": "mii-monitor-interval", "xmit-hash-policy": "transmit-hash-policy", "updelay": "up-delay",
		"downdelay": "down-delay", "fail-over-mac": "fail-over-mac-policy", "primary-reselect": "primary-reselect-policy",
		"arp-ip-target": "arp-ip-targets", "fd": "forward-delay", "bridgeprio": "priority", "hello": "hello-time",
		"maxage": "max-age", "ageing": "ageing-time", "aging-time": "ageing-time",
	}[name]; ok {
		return full
	}
	return name
}

// bondModes and hashPolicies are in the kernel's order: version 1 also writes
// their numbers.
func bondModes() []string {
	return []string{"balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"}
}

func hashPolicies() []string {
	return []string{"layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"}
}

// bond reads parameters of a bond.
func (p *parser) bond(n *yaml.Node, at string, b *Bond) {
	known := []string{"mode", "lacp-rate", "mii-monitor-interval", "min-links", "transmit-hash-policy", "ad-select", "arp-interval",
		"arp-ip-targets", "up-delay", "down-delay", "fail-over-mac-policy", "gratuitous-arp", "primary", "primary-reselect-policy"}
	for _, f := range p.Pairs(n, at) {
		key := userdata.Join(at, f.Name)
		choice := func(to *string, words ...string) { *to = p.choice(f.Value, key, words) }
		switch plainWord(f.Name) {
		case "mode":
			choice(&b.Mode, bondModes()...)
		case "lacp-rate":
			choice(&b.LACPRate, "slow", "fast")
		case "transmit-hash-policy":
			choice(&b.HashPolicy, hashPolicies()...)
		case "ad-select":
			choice(&b.Select, "stable", "bandwidth", "count")
		case "fail-over-mac-policy":
			choice(&b.FailOverMAC, "none", "active", "follow")
		case "primary-reselect-policy":
			choice(&b.PrimaryReselect, "always", "better", "failure")
		case "primary":
			b.Primary, _ = p.String(f.Value, key)
		case "mii-monitor-interval":
			b.MIIMonitor, _ = p.Int(f.Value, key, 0, 60_000)
		case "up-delay":
			b.UpDelay, _ = p.Int(f.Value, key, 0, 600_000)
		case "down-delay":
			b.DownDelay, _ = p.Int(f.Value, key, 0, 600_000)
		case "gratuitous-arp", "num-grat-arp", "num-unsol-na":
			if v, ok := p.Int(f.Value, key, 0, 255); ok {
				b.Notices = &v
			}
		case "min-links":
			b.MinLinks, _ = p.Int(f.Value, key, 0, 64)
		case "arp-interval":
			b.ARPInterval, _ = p.Int(f.Value, key, 0, 60_000)
		case "arp-ip-targets":
			for _, a := range p.addrs(f.Value, key) {
				if !a.Is4() {
					p.Bad(f.Value, key, "%s is not an IPv4 address", a)
				}
				b.ARPTargets = append(b.ARPTargets, a)
			}
		default:
			p.Unknown(f, at, known)
		}
	}
}

// choice reads one of some words, or its number.
func (p *parser) choice(n *yaml.Node, key string, words []string) string {
	s, ok := p.String(n, key)
	if !ok {
		return ""
	}
	if i, err := strconv.Atoi(s); err == nil && i >= 0 && i < len(words) {
		return words[i]
	}
	if !slices.Contains(words, s) {
		p.Bad(n, key, "%.40q is not known; use one of %s", s, strings.Join(words, ", "))
		return ""
	}
	return s
}

// bridge reads parameters of a bridge (IEEE 802.1D; ranges of net/bridge/br_stp.c).
func (p *parser) bridge(n *yaml.Node, at string, b *BridgeSettings) {
	known := []string{"stp", "priority", "forward-delay", "hello-time", "max-age", "ageing-time"}
	for _, f := range p.Pairs(n, at) {
		key := userdata.Join(at, f.Name)
		number := func(to **int, low, high int) {
			if v, ok := p.Int(f.Value, key, low, high); ok {
				*to = &v
			}
		}
		switch plainWord(f.Name) {
		case "stp":
			switch f.Value.Value {
			case "1":
				b.STP = true
			case "0":
			default:
				b.STP, _ = p.Bool(f.Value, key)
			}
		case "priority":
			number(&b.Priority, 0, 65535)
		case "forward-delay":
			number(&b.Forward, 0, 30)
		case "hello-time":
			number(&b.Hello, 1, 10)
		case "max-age":
			number(&b.MaxAge, 6, 40)
		case "ageing-time":
			number(&b.Aging, 0, 1_000_000)
		case "ports", "waitport", "maxwait":
		case "path-cost", "pathcost", "port-priority", "portprio", "gcint":
			p.Note(f.Key, key, "is not supported: ports have the kernel's cost and priority (passed over)")
		default:
			p.Unknown(f, at, known)
		}
	}
}

// check holds the links to what they say of each other, once all are read.
func (p *parser) check() {
	byID := map[string]*Link{}
	for i := range p.plan.Links {
		l := &p.plan.Links[i]
		if byID[l.ID] != nil && l.ID != "" {
			p.problem(l.line, l.at, "has the name of another link")
		}
		byID[l.ID] = l
	}
	master := map[string]string{}
	for i := range p.plan.Links {
		l := &p.plan.Links[i]
		for _, id := range l.Members {
			m := byID[id]
			switch {
			case m == nil:
				p.problem(l.line, l.at, fmt.Sprintf("takes in %.40q, which is no link of this document", id))
				continue
			case master[id] != "":
				p.problem(l.line, l.at, fmt.Sprintf("takes in %s, which is part of %s already", id, master[id]))
			case m == l, l.Kind == KindBond && m.Kind != Ethernet, m.Kind == Bridge:
				p.problem(l.line, l.at, fmt.Sprintf("cannot take in %s", id))
			case m.DHCP4 || m.DHCP6 || len(m.Addresses)+len(m.Routes) > 0:
				p.problem(m.line, m.at, fmt.Sprintf("is part of %s, which is to have its addresses, routes and dhcp", l.ID))
			}
			master[id], m.Member = l.ID, true
		}
		if l.Bond.Primary != "" && !slices.Contains(l.Members, l.Bond.Primary) {
			p.problem(l.line, l.at, fmt.Sprintf("has the primary %.40q, which is no member", l.Bond.Primary))
		}
		if l.Kind == VLAN && (byID[l.Parent] == nil || byID[l.Parent].Kind == VLAN) {
			p.problem(l.line, l.at, fmt.Sprintf("is on %.40q, which is no ethernet, bond or bridge of this document", l.Parent))
		}
	}
}
