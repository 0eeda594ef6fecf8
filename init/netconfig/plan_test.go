package netconfig

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"keelson/init/userdata"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

// dhcp is what most links are.
func dhcp(id string, m Match) Link { return Link{ID: id, Match: m, DHCP4: true, AcceptRA: true} }

// One field of a link at a time, beside the defaults.
func TestVersion2Fields(t *testing.T) {
	all4, all6 := prefix("0.0.0.0/0"), prefix("::/0")
	tests := []struct {
		name, text string
		change     func(*Link)
	}{
		{"nothing", "{}", func(*Link) {}},
		{"null", "", func(*Link) {}},
		{"dhcp4", "{dhcp4: true}", func(l *Link) { l.DHCP4 = true }},
		{"dhcp4 as cloud-init writes it", "{dhcp4: yes, dhcp6: no}", func(l *Link) { l.DHCP4 = true }},
		{"dhcp6", "{dhcp6: on}", func(l *Link) { l.DHCP6 = true }},
		{"no router advertisements", "{accept-ra: no}", func(l *Link) { l.AcceptRA = false }},
		{"smallest mtu", "{mtu: 576}", func(l *Link) { l.MTU = 576 }},
		{"jumbo frames", "{mtu: 9000}", func(l *Link) { l.MTU = 9000 }},
		{"match by name", "{match: {name: 'en[op]*'}}", func(l *Link) { l.Match = Match{Name: "en[op]*"} }},
		{"match by all but one", "{match: {name: 'eth[!0]'}}", func(l *Link) { l.Match = Match{Name: "eth[^0]"} }},
		{"match by MAC with dashes", "{match: {macaddress: 52-54-00-AB-CD-EF}}", func(l *Link) { l.Match = Match{MAC: "52:54:00:ab:cd:ef"} }},
		{"match by all", "{match: {name: e*, macaddress: '52:54:00:00:00:01', driver: 'virtio*'}}",
			func(l *Link) { l.Match = Match{Name: "e*", MAC: "52:54:00:00:00:01", Driver: "virtio*"} }},
		{"empty match is the key", "{match: {}}", func(*Link) {}},
		{"new name", "{set-name: lan0}", func(l *Link) { l.SetName = "lan0" }},
		{"addresses", "{addresses: [192.0.2.9/31, '2001:db8::9/127']}", func(l *Link) {
			l.Addresses = []netip.Prefix{prefix("192.0.2.9/31"), prefix("2001:db8::9/127")}
		}},
		{"address of one host", "{addresses: [192.0.2.9/32]}", func(l *Link) { l.Addresses = []netip.Prefix{prefix("192.0.2.9/32")} }},
		{"gateways", "{gateway4: 192.0.2.1, gateway6: 'fe80::1'}", func(l *Link) {
			l.Routes = []Route{{To: all4, Via: addr("192.0.2.1")}, {To: all6, Via: addr("fe80::1")}}
		}},
		{"route by host", "{routes: [{to: 203.0.113.7, via: 192.0.2.1}]}", func(l *Link) {
			l.Routes = []Route{{To: prefix("203.0.113.7/32"), Via: addr("192.0.2.1")}}
		}},
		{"route by IPv6 host", "{routes: [{to: '2001:db8::7', via: 'fe80::1'}]}", func(l *Link) {
			l.Routes = []Route{{To: prefix("2001:db8::7/128"), Via: addr("fe80::1")}}
		}},
		{"route with host bits", "{routes: [{to: 10.1.2.3/8, via: 192.0.2.1}]}", func(l *Link) {
			l.Routes = []Route{{To: prefix("10.0.0.0/8"), Via: addr("192.0.2.1")}}
		}},
		{"default by zeroes", "{routes: [{to: 0.0.0.0/0, via: 192.0.2.1, metric: 0}]}", func(l *Link) {
			l.Routes = []Route{{To: all4, Via: addr("192.0.2.1")}}
		}},
		{"default before its gateway is known", "{routes: [{to: default, via: 'fe80::1', on-link: true}]}", func(l *Link) {
			l.Routes = []Route{{To: all6, Via: addr("fe80::1"), OnLink: true}}
		}},
		{"route on the link itself", "{routes: [{to: 169.254.169.254/32, metric: 4}]}", func(l *Link) {
			l.Routes = []Route{{To: prefix("169.254.169.254/32"), Metric: 4}}
		}},
		{"name servers", "{nameservers: {addresses: [192.0.2.53, '2001:db8::53'], search: [a.example, b.example]}}", func(l *Link) {
			l.Nameservers, l.Search = []netip.Addr{addr("192.0.2.53"), addr("2001:db8::53")}, []string{"a.example", "b.example"}
		}},
		{"one name server", "{nameservers: {addresses: 192.0.2.53, search: a.example b.example}}", func(l *Link) {
			l.Nameservers, l.Search = []netip.Addr{addr("192.0.2.53")}, []string{"a.example", "b.example"}
		}},
		{"metric", "{dhcp4-overrides: {route-metric: 300}}", func(l *Link) { l.Metric = 300 }},
		{"metric of DHCPv6 is another", "{dhcp4-overrides: {route-metric: 300}, dhcp6-overrides: {route-metric: 1}}", func(l *Link) { l.Metric = 300 }},
		{"no names by DHCPv4", "{dhcp4-overrides: {use-dns: false}, dhcp6-overrides: {use-dns: true}}", func(l *Link) { l.DHCP4Overrides.IgnoreDNS = true }},
		{"no names by DHCPv6", "{dhcp6-overrides: {use-dns: no}}", func(l *Link) { l.DHCP6Overrides.IgnoreDNS = true }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := Link{ID: "eth0", Match: Match{Name: "eth0"}, AcceptRA: true}
			tt.change(&want)
			plan := said(t, "version: 2\nethernets:\n  eth0: "+tt.text+"\n", "")
			if !reflect.DeepEqual(plan, Plan{Links: []Link{want}}) {
				t.Errorf("got %+v, want the one link %+v", plan, want)
			}
		})
	}
}

// One subnet of version 1 at a time.
func TestVersion1Subnets(t *testing.T) {
	all4 := prefix("0.0.0.0/0")
	static := func(s string) func(*Link) {
		return func(l *Link) { l.Addresses = []netip.Prefix{prefix(s)} }
	}
	tests := []struct {
		name, text string
		change     func(*Link)
	}{
		{"dhcp", "type: dhcp", func(l *Link) { l.DHCP4 = true }},
		{"dhcp4", "type: dhcp4", func(l *Link) { l.DHCP4 = true }},
		{"dhcp6", "type: dhcp6", func(l *Link) { l.DHCP6 = true }},
		{"stateful", "type: ipv6_dhcpv6-stateful", func(l *Link) { l.DHCP6 = true }},
		{"stateless", "type: ipv6_dhcpv6-stateless", func(l *Link) { l.DHCP6 = true }},
		{"slaac", "type: ipv6_slaac", func(*Link) {}},
		{"manual", "type: manual", func(*Link) {}},
		{"address with length", "type: static, address: 192.0.2.9/24", static("192.0.2.9/24")},
		{"length goes before netmask", "type: static, address: 192.0.2.9/25, netmask: 255.255.255.0", static("192.0.2.9/25")},
		{"netmask", "type: static, address: 192.0.2.9, netmask: 255.255.240.0", static("192.0.2.9/20")},
		{"netmask before the address", "netmask: 255.0.0.0, address: 192.0.2.9, type: static", static("192.0.2.9/8")},
		{"netmask as a length", "type: static, address: 192.0.2.9, netmask: 26", static("192.0.2.9/26")},
		{"IPv6 netmask", "type: static6, address: '2001:db8::9', netmask: 'ffff:ffff:ffff:ffff::'", static("2001:db8::9/64")},
		{"IPv6 length", "type: static6, address: '2001:db8::9', netmask: '56'", static("2001:db8::9/56")},
		{"gateway", "type: dhcp, gateway: 192.0.2.1", func(l *Link) {
			l.DHCP4, l.Routes = true, []Route{{To: all4, Via: addr("192.0.2.1")}}
		}},
		{"mtu", "type: dhcp, mtu: 1400", func(l *Link) { l.DHCP4, l.MTU = true, 1400 }},
		{"names", "type: manual, dns_nameservers: [192.0.2.53], dns_search: [a.example]", func(l *Link) {
			l.Nameservers, l.Search = []netip.Addr{addr("192.0.2.53")}, []string{"a.example"}
		}},
		{"names as texts", "type: manual, dns_nameservers: 192.0.2.53, dns_search: a.example b.example", func(l *Link) {
			l.Nameservers, l.Search = []netip.Addr{addr("192.0.2.53")}, []string{"a.example", "b.example"}
		}},
		{"routes", "type: manual, routes: [{network: 10.0.0.0, netmask: 255.0.0.0, gateway: 192.0.2.2}, {destination: 10.9.0.0/16, gateway: 192.0.2.3, metric: 5}]",
			func(l *Link) {
				l.Routes = []Route{{To: prefix("10.0.0.0/8"), Via: addr("192.0.2.2")}, {To: prefix("10.9.0.0/16"), Via: addr("192.0.2.3"), Metric: 5}}
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := Link{ID: "eth0", Match: Match{Name: "eth0"}, AcceptRA: true}
			tt.change(&want)
			plan := said(t, "version: 1\nconfig: [{type: physical, name: eth0, subnets: [{"+tt.text+"}]}]\n", "")
			if !reflect.DeepEqual(plan, Plan{Links: []Link{want}}) {
				t.Errorf("got %+v, want the one link %+v", plan, want)
			}
		})
	}
}

// Documents as platforms write them: their shapes, with addresses for examples.
func TestDocumentsOfPlatforms(t *testing.T) {
	tests := []struct {
		name, text string
		want       Plan
	}{
		{"Proxmox", `version: 1
config:
    - type: physical
      name: eth0
      mac_address: 'bc:24:11:00:00:01'
      subnets:
      - type: static
        address: '192.0.2.9'
        netmask: '255.255.255.0'
        gateway: '192.0.2.1'
      - type: static6
        address: '2001:db8::9/64'
    - type: nameserver
      address:
      - '192.0.2.53'
      search:
      - 'a.example'
`, Plan{Links: []Link{{ID: "eth0", Match: Match{MAC: "bc:24:11:00:00:01"}, SetName: "eth0", AcceptRA: true,
			Addresses: []netip.Prefix{prefix("192.0.2.9/24"), prefix("2001:db8::9/64")}, Routes: []Route{{To: prefix("0.0.0.0/0"), Via: addr("192.0.2.1")}}}},
			Nameservers: []netip.Addr{addr("192.0.2.53")}, Search: []string{"a.example"}}},
		{"Hetzner", `version: 2
ethernets:
  eth0:
    match:
      macaddress: "96:00:00:00:00:01"
    set-name: "eth0"
    dhcp4: true
    addresses: ["2001:db8::1/64"]
    gateway6: fe80::1
    nameservers:
      addresses: ["2001:db8::53"]
`, Plan{Links: []Link{{ID: "eth0", Match: Match{MAC: "96:00:00:00:00:01"}, SetName: "eth0", DHCP4: true, AcceptRA: true,
			Addresses: []netip.Prefix{prefix("2001:db8::1/64")}, Routes: []Route{{To: prefix("::/0"), Via: addr("fe80::1")}},
			Nameservers: []netip.Addr{addr("2001:db8::53")}}}}},
		{"libvirt, by pattern", "network:\n  version: 2\n  ethernets:\n    id0:\n      match: {name: \"en*\"}\n      dhcp4: true\n",
			Plan{Links: []Link{dhcp("id0", Match{Name: "en*"})}}},
		{"gateway off the network", `version: 2
ethernets:
  ens3:
    addresses: [203.0.113.9/32]
    routes:
    - {to: 198.51.100.1/32}
    - {to: default, via: 198.51.100.1, on-link: true}
`, Plan{Links: []Link{{ID: "ens3", Match: Match{Name: "ens3"}, AcceptRA: true, Addresses: []netip.Prefix{prefix("203.0.113.9/32")},
			Routes: []Route{{To: prefix("198.51.100.1/32")}, {To: prefix("0.0.0.0/0"), Via: addr("198.51.100.1"), OnLink: true}}}}}},
		{"two links, one without anything", "version: 2\nethernets:\n  eth0: {dhcp4: true}\n  eth1: {dhcp4: false, accept-ra: false, optional: true}\n",
			Plan{Links: []Link{dhcp("eth0", Match{Name: "eth0"}), {ID: "eth1", Match: Match{Name: "eth1"}}}}},
		{"cloud-init's own off switch", "network:\n  config: disabled\n", Plan{Disabled: true}},
		{"off without network around it", "config: disabled\n", Plan{Disabled: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := said(t, tt.text, ""); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", show(got), show(tt.want))
			}
		})
	}
}

// Half of one network laid over another is no network: the last document is all.
func TestLastDocumentIsAll(t *testing.T) {
	docs := []userdata.Document{
		{Source: "esp", Data: []byte("version: 2\ntunnels: {}\n")},
		{Source: "cidata", Data: []byte("version: 2\nethernets: {eth0: {dhcp4: true}}\n")},
	}
	plan, problems := Load(docs)
	if len(problems) > 0 || len(plan.Links) != 1 {
		t.Errorf("got %+v and %v, want the second document alone", plan, problems)
	}
	plan, problems = Load([]userdata.Document{docs[1], docs[0]})
	if len(plan.Links) != 0 || len(problems) != 1 || problems[0].Source != "esp" {
		t.Errorf("got %+v and %v, want the mistake of the last document", plan, problems)
	}
	if plan, problems = Load(nil); !reflect.DeepEqual(plan, Plan{}) || problems != nil {
		t.Errorf("got %+v and %v, want the default of no document", plan, problems)
	}
}

func TestMaskLength(t *testing.T) {
	for mask, want := range map[string]string{
		"255.255.255.0": "24", "255.255.255.255": "32", "0.0.0.0": "0", "255.255.255.128": "25", "ffff::": "16", "24": "24",
		"255.0.255.0": "255.0.255.0", "0.0.0.255": "0.0.0.255", "x": "x", "": "",
	} {
		if got := maskLength(mask); got != want {
			t.Errorf("%s: got %s, want %s", mask, got, want)
		}
	}
}

// Patterns never reach over the whole name by accident.
func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "eth0", true}, {"*", "eth0", true}, {"*", "", true}, {"eth", "eth0", false}, {"eth?", "eth10", false}, {"eth[0-3]", "eth2", true},
		{"eth[^0]", "eth1", true}, {"ETH0", "eth0", false}, {"[", "[", false}, {`e\*`, "e*", true},
	} {
		t.Run(fmt.Sprintf("%q of %q", tt.pattern, tt.s), func(t *testing.T) {
			if got := glob(tt.pattern, tt.s); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
