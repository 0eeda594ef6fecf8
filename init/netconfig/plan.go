package netconfig

import (
	"bytes"
	"net/netip"
	"path"
	"strings"

	"keelson/init/userdata"
)

// Plan is what the machine's links are to become. Without links every ethernet
// gets its addresses by DHCPv4 and IPv6 autoconfiguration.
type Plan struct {
	Links       []Link
	Nameservers []netip.Addr // before those of links
	Search      []string
	Routes      []Route // of version 1, by whatever link reaches the gateway
	Disabled    bool    // "config: disabled": leave every link alone
}

// Link says what to do with the interfaces that match it, or which to make.
type Link struct {
	ID          string
	Kind        string   // Ethernet, KindBond, Bridge or VLAN
	Members     []string // IDs of what a bond or a bridge takes in
	Member      bool     // one of those
	Parent      string   // ID of what a VLAN is on
	VLAN        int      // its number
	Bond        Bond
	Bridge      BridgeSettings
	MAC         string // to set, "" leaves it
	Match       Match
	SetName     string // rename the interface, "" leaves it
	DHCP4       bool
	DHCP6       bool // ask without waiting for a router to say so
	AcceptRA    bool
	Addresses   []netip.Prefix
	Routes      []Route
	Nameservers []netip.Addr
	Search      []string
	MTU         int
	Metric      int // of routes learned by DHCPv4, 0 for the default

	DHCP4Overrides Overrides
	DHCP6Overrides Overrides // IgnoreDNS is of router advertisements too

	at   string // where the document says it
	line int
}

// Overrides are what of a DHCP exchange is left out.
type Overrides struct {
	IgnoreDNS, IgnoreDomains, IgnoreRoutes, IgnoreMTU, IgnoreNTP bool

	Anonymous bool   // do not tell the server our name
	Hostname  string // tell it this name instead
}

// Match picks interfaces; every field that is set must fit.
type Match struct {
	Name   string // with * and ? as in path.Match
	MAC    string // lower case, colons
	Driver string
}

// Fits reports whether an interface is meant.
func (m Match) Fits(name, mac, driver string) bool {
	if m == (Match{}) {
		return false
	}
	return glob(m.Name, name) && (m.MAC == "" || m.MAC == strings.ToLower(mac)) && glob(m.Driver, driver)
}

func glob(pattern, s string) bool {
	if pattern == "" {
		return true
	}
	ok, err := path.Match(pattern, s)
	return ok && err == nil
}

// Route is one entry for the routing table.
type Route struct {
	To     netip.Prefix
	Via    netip.Addr // invalid: the network is on the link itself
	Metric int
	OnLink bool
}

// Load reads the strongest document, the last one. Documents are not merged:
// half of one network laid over another is no network.
func Load(docs []userdata.Document) (Plan, []userdata.Problem) {
	if len(docs) == 0 {
		return Plan{}, nil
	}
	d := docs[len(docs)-1]
	p := parser{Reader: userdata.Reader{Source: d.Source}}
	root := p.Parse(bytes.TrimPrefix(d.Data, []byte("\xef\xbb\xbf")))
	if root == nil {
		return Plan{}, p.Problems
	}
	pairs := p.Pairs(root, "")
	if len(pairs) == 1 && pairs[0].Name == "network" { // as in /etc/cloud and netplan
		pairs = p.Pairs(pairs[0].Value, "network")
	}
	version := 0
	for _, pair := range pairs {
		if pair.Name == "version" {
			version, _ = p.Int(pair.Value, "version", 1, 2)
		} else if pair.Name == "config" && pair.Value.Value == "disabled" {
			return Plan{Disabled: true}, p.Problems
		}
	}
	switch {
	case version == 1:
		p.version1(pairs)
	case version == 2:
		p.version2(pairs)
	case len(p.Problems) == 0 && !p.openstack(pairs):
		p.Bad(root, "version", "is missing; write version: 2 or version: 1")
	}
	p.check()
	for i := range p.plan.Links { // only needed for messages, and plans are compared
		p.plan.Links[i].at, p.plan.Links[i].line = "", 0
	}
	return p.plan, p.Problems
}
