package netconfig

import (
	"strings"
	"testing"

	"keelson/init/userdata"
)

// said loads one document and compares every word that is said of it.
func said(t *testing.T, text, want string) Plan {
	t.Helper()
	plan, problems := Load([]userdata.Document{{Source: "net", Data: []byte(text)}})
	var lines []string
	for _, p := range problems {
		mark := "note "
		if p.Fatal {
			mark = "FATAL "
		}
		lines = append(lines, mark+p.String())
	}
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	return plan
}

// Whatever this version does not make is refused by its name and line, so that
// no machine comes up with half of its network.
func TestRefusedKinds(t *testing.T) {
	for _, kind := range []string{"tunnels", "wifis", "vrfs", "modems", "dummy-devices", "virtual-ethernets"} {
		t.Run("version 2 "+kind, func(t *testing.T) {
			said(t, "version: 2\nethernets: {eth0: {dhcp4: true}}\n"+kind+": {x0: {interfaces: [eth0]}}\n",
				"FATAL net: line 3: "+kind+": "+kind+" are not made here; describe ethernets, bonds, bridges and vlans")
		})
	}
	for _, kind := range []string{"infiniband"} {
		t.Run("version 1 "+kind, func(t *testing.T) {
			said(t, "version: 1\nconfig:\n- {type: loopback, name: lo}\n- {type: "+kind+", name: x0}\n",
				"FATAL net: line 4: config[1]: "+kind+"s are not made here; describe ethernets, bonds, bridges and vlans")
		})
	}
}

func TestDocument(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"network around it", "network:\n  version: 2\n", ""},
		{"json", `{"network": {"version": 2, "ethernets": {}}}`, ""},
		{"byte order mark", "\xef\xbb\xbfversion: 2\n", ""},
		{"comments alone", "# nothing\n", ""},
		{"empty network", "network:\n", "FATAL net: line 1: version: is missing; write version: 2 or version: 1"},
		{"network is a list", "network: [a]\n", "FATAL net: line 1: network: is a list where a map of keys is wanted"},
		{"something beside network", "network: {version: 2}\nother: 1\n", "FATAL net: line 1: version: is missing; write version: 2 or version: 1"},
		{"version as a word", "version: two\n", "FATAL net: line 1: version: is not a whole number from 1 to 2"},
		{"version in quotes", "version: '2'\n", ""},
		{"renderer", "version: 2\nrenderer: NetworkManager\n", "note net: line 2: renderer: has no effect: init itself sets up the network (passed over)"},
		{"unknown in version 2", "version: 2\nconfig: []\n", "FATAL net: line 2: config: is not a key here; remove it, or use one of version, ethernets, bonds, bridges, vlans"},
		{"unknown in version 1", "version: 1\nethernets: {}\n", "FATAL net: line 2: ethernets: is not a key here; remove it, or use one of version, config"},
		{"version 2 as a list", "version: 2\nethernets: [eth0]\n", "FATAL net: line 2: ethernets: is a list where a map of keys is wanted"},
		{"version 1 as a map", "version: 1\nconfig: {a: b}\n", `FATAL net: line 2: config: is a map where a list is wanted; begin its lines with "- "`},
		{"twice", "version: 2\nethernets: {eth0: {}, eth0: {}}\n", "FATAL net: line 2: ethernets.eth0: is given twice, first in line 2; keep one"},
		{"merge key", "version: 2\nethernets:\n  a: &a {dhcp4: true}\n  b:\n    <<: *a\n",
			"FATAL net: line 5: ethernets.b: uses a YAML merge key (<<), which is not understood here; write the keys out"},
		{"all mistakes at once", "version: 2\nethernets:\n  a: {mtu: 0}\n  b: {dhcp4: 7}\n",
			"FATAL net: line 3: ethernets.a.mtu: is not a whole number from 576 to 65535\nFATAL net: line 4: ethernets.b.dhcp4: is a number where true or false is wanted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { said(t, tt.text, tt.want) })
	}
}

// The words below ethernets.eth0, in line 4.
func TestVersion2Messages(t *testing.T) {
	const at = "FATAL net: line 4: ethernets.eth0."
	const route = "ethernets.eth0.routes[0]"
	const network = "is not a network; write default, or one like 10.0.0.0/8"
	const address = "is not an address with its length; write it like 192.0.2.10/24"
	const hardware = `is not a MAC address; write it in quotes, like "52:54:00:12:34:56"`
	const known = "; remove it, or use one of match, set-name, dhcp4, dhcp6, dhcp4-overrides, dhcp6-overrides, accept-ra, addresses, gateway4, gateway6, nameservers, routes, mtu, optional"
	tests := []struct{ name, text, want string }{
		{"keys without effect", "{optional: true, optional-addresses: [a], critical: true, dhcp-identifier: mac, wakeonlan: true, ipv6-privacy: false, link-local: [], emit-lldp: no}", ""},
		{"unknown", "interfaces: [a]", at + "interfaces: is not a key of ethernets.eth0" + known},
		{"not a map", "- a", "FATAL net: line 4: ethernets.eth0: is a list where a map of keys is wanted"},
		{"dhcp6", "dhcp6: {}", at + "dhcp6: is a map where true or false is wanted"},
		{"accept-ra", "accept-ra: 2", at + "accept-ra: is a number where true or false is wanted"},
		{"mtu too large", "mtu: 65536", at + "mtu: is not a whole number from 576 to 65535"},
		{"address without length", "addresses: [192.0.2.1]", at + `addresses[0]: "192.0.2.1" ` + address},
		{"second address", "addresses: [192.0.2.1/24, 192.0.2.256/24]", at + `addresses[1]: "192.0.2.256/24" ` + address},
		{"length too long", "addresses: [192.0.2.1/33]", at + `addresses[0]: "192.0.2.1/33" ` + address},
		{"netmask as length", "addresses: [192.0.2.1/255.255.255.0]", at + `addresses[0]: "192.0.2.1/255.255.255.0" ` + address},
		{"unspecified", "addresses: ['::/64']", at + `addresses[0]: "::/64" ` + address},
		{"multicast", "addresses: ['ff02::1/64']", at + `addresses[0]: "ff02::1/64" ` + address},
		{"IPv4 in IPv6", "addresses: ['::ffff:192.0.2.1/120']", at + `addresses[0]: "::ffff:192.0.2.1/120" ` + address},
		{"address with options", "addresses: [{192.0.2.1/24: {label: x}}]", at + "addresses[0]: is a map where a text is wanted"},
		{"gateway", "gateway6: '::'", at + `gateway6: "::" is not an IP address`},
		{"gateway by multicast", "gateway4: 224.0.0.1", at + `gateway4: "224.0.0.1" is not an IP address`},
		{"name server", "nameservers: {addresses: [dns.example]}", at + `nameservers.addresses[0]: "dns.example" is not an IP address`},
		{"name servers as a list", "nameservers: [192.0.2.53]", at + "nameservers: is a list where a map of keys is wanted"},
		{"name servers key", "nameservers: {addrs: []}", at + "nameservers.addrs: is not a key of ethernets.eth0.nameservers; remove it, or use one of addresses, search"},
		{"search with a line", `nameservers: {search: ["a\nb"]}`, at + `nameservers.search: "a\nb" is not a domain`},
		{"match by name of a map", "match: {name: {}}", at + "match.name: is a map where a text is wanted"},
		{"match by empty name", "match: {name: ''}", at + `match.name: "" is not a pattern; use letters, *, ? and [a-z]`},
		{"match by open bracket", "match: {driver: 'virtio[' }", at + `match.driver: "virtio[" is not a pattern; use letters, *, ? and [a-z]`},
		{"match by long MAC", "match: {macaddress: '02:00:5e:10:00:00:00:01'}", at + `match.macaddress: "02:00:5e:10:00:00:00:01" ` + hardware},
		{"match by nothing", "match: {macaddress: ~}", at + "match.macaddress: is empty where a text is wanted"},
		{"match key", "match: {path: pci-0}", at + "match.path: is not a key of ethernets.eth0.match; remove it, or use one of name, macaddress, driver"},
		{"long new name", "set-name: abcdefghijklmnop", at + `set-name: "abcdefghijklmnop" is not the name of an interface; use at most 15 letters and digits`},
		{"new name up", "set-name: ..", at + `set-name: ".." is not the name of an interface; use at most 15 letters and digits`},
		{"overrides", "dhcp4-overrides: {use-time: false}", at + "dhcp4-overrides.use-time: is not a key of ethernets.eth0.dhcp4-overrides; remove it, or use one of use-dns, use-domains, use-hostname, use-mtu, use-ntp, use-routes, send-hostname, hostname, route-metric"},
		{"overrides value", "dhcp6-overrides: {use-dns: domains}", at + "dhcp6-overrides.use-dns: is a text where true or false is wanted"},
		{"negative metric", "dhcp4-overrides: {route-metric: -1}", at + "dhcp4-overrides.route-metric: is not a whole number from 0 to 2147483647"},
		{"routes as a map", "routes: {to: default}", at + `routes: is a map where a list is wanted; begin its lines with "- "`},
		{"route as a text", "routes: [default]", "FATAL net: line 4: " + route + ": is a text where a map of keys is wanted"},
		{"route to nowhere", "routes: [{to: somewhere, via: 192.0.2.1}]", "FATAL net: line 4: " + route + `.to: "somewhere" ` + network},
		{"route to a zone", "routes: [{to: 'fe80::1%eth0', via: 'fe80::2'}]", "FATAL net: line 4: " + route + `.to: "fe80::1%eth0" ` + network},
		{"route to IPv4 in IPv6", "routes: [{to: '::ffff:10.0.0.0/104', via: '2001:db8::1'}]", "FATAL net: line 4: " + route + `.to: "::ffff:10.0.0.0/104" ` + network},
		{"default through nobody", "routes: [{to: default}]", "FATAL net: line 4: " + route + ": is no route: it needs to and via, both of one address family"},
		{"route metric", "routes: [{to: default, via: 192.0.2.1, metric: high}]", "FATAL net: line 4: " + route + ".metric: is not a whole number from 0 to 2147483647"},
		{"route on-link", "routes: [{to: default, via: 192.0.2.1, on-link: [a]}]", "FATAL net: line 4: " + route + ".on-link: is a list where true or false is wanted"},
		{"route table", "routes: [{to: default, via: 192.0.2.1, table: 7}]", "FATAL net: line 4: " + route + ".table: is not a key of " + route + "; remove it, or use one of to, via, metric, on-link"},
		{"unknown with a value that is long", "gateway4: " + strings.Repeat("9", 100), at + `gateway4: "` + strings.Repeat("9", 60) + `" is not an IP address`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { said(t, "version: 2\nethernets:\n  eth0:\n    "+tt.text+"\n", tt.want) })
	}
}

// An interface whose key is no name needs a match.
func TestNameOfTheKey(t *testing.T) {
	said(t, "version: 2\nethernets:\n  'all of them': {dhcp4: true}\n",
		`FATAL net: line 3: ethernets.all of them: "all of them" is not the name of an interface; use at most 15 letters and digits`)
	if plan := said(t, "version: 2\nethernets:\n  'all of them': {match: {driver: virtio_net}}\n", ""); plan.Links[0].Match.Name != "" {
		t.Errorf("got %+v, want the key to be no name beside a match", plan.Links[0].Match)
	}
}

// The entries of version 1, in line 3.
func TestVersion1Messages(t *testing.T) {
	const at = "FATAL net: line 3: config[0]"
	const network = "is not a network; write default, or one like 10.0.0.0/8"
	subnet := func(s string) string { return "{type: physical, name: a, subnets: [{" + s + "}]}" }
	tests := []struct{ name, text, want string }{
		{"no type", "{name: eth0}", at + `.type: "" is not a type; use physical, bond, bridge, vlan, nameserver or route`},
		{"a text", "eth0", at + ": is a text where a map of keys is wanted\n" + at + `.type: "" is not a type; use physical, bond, bridge, vlan, nameserver or route`},
		{"nameless", "{type: physical, mtu: 1400}", at + ": has neither name nor mac_address; add one of them"},
		{"bad name", "{type: physical, name: a b}", at + `.name: "a b" is not the name of an interface; use at most 15 letters and digits` + "\n" + at + ": has neither name nor mac_address; add one of them"},
		{"bad MAC", "{type: physical, name: a, mac_address: 1.2}", at + `.mac_address: "1.2" is not a MAC address; write it in quotes, like "52:54:00:12:34:56"`},
		{"MAC that YAML 1.1 would count", "{type: physical, mac_address: 52:54:00:12:34:56}", ""},
		{"unknown", "{type: physical, name: a, params: {}}", at + ".params: is not a key of config[0]; remove it, or use one of name, mac_address, mtu, accept-ra, subnets"},
		{"kept configuration", "{type: physical, name: a, keep_configuration: true}", ""},
		{"mtu", "{type: physical, name: a, mtu: big}", at + ".mtu: is not a whole number from 576 to 65535"},
		{"subnets", "{type: physical, name: a, subnets: {type: dhcp}}", at + `.subnets: is a map where a list is wanted; begin its lines with "- "`},
		{"subnet as a text", "{type: physical, name: a, subnets: [dhcp]}", at + ".subnets[0]: is a text where a map of keys is wanted"},
		{"kind of subnet", subnet("type: bootp"), at + `.subnets[0].type: "bootp" is not a kind of subnet; use dhcp, dhcp6 or static`},
		{"static6 without address", subnet("type: static6"), at + ".subnets[0]: is static without an address; add one like 192.0.2.10/24"},
		{"mask with holes", subnet("type: static, address: 192.0.2.1, netmask: 255.0.255.0"), at + `.subnets[0].address: "192.0.2.1/255.0.255.0" is not an address with its length; write it like 192.0.2.10/24`},
		{"mask of the other family", subnet("type: static, address: 192.0.2.1, netmask: 'ffff:ffff:ffff::'"), at + `.subnets[0].address: "192.0.2.1/48" is not an address with its length; write it like 192.0.2.10/24`},
		{"gateway", subnet("type: dhcp, gateway: x"), at + `.subnets[0].gateway: "x" is not an IP address`},
		{"name server", subnet("type: dhcp, dns_nameservers: x"), at + `.subnets[0].dns_nameservers: "x" is not an IP address`},
		{"unknown of subnet", subnet("type: dhcp, scope: global"), at + ".subnets[0].scope: is not a key of config[0].subnets[0]; remove it, or use one of type, address, netmask, gateway, dns_nameservers, dns_search, mtu, routes"},
		{"words without effect", subnet("type: dhcp, broadcast: 192.0.2.255, control: auto, ipv4: true, ipv6: false, metric: 3"), ""},
		{"route of subnet", subnet("type: dhcp, routes: [{network: x, gateway: 192.0.2.1}]"), at + `.subnets[0].routes[0].network: "x" ` + network},
		{"route as a list", subnet("type: dhcp, routes: [[a]]"), at + ".subnets[0].routes[0]: is a list where a map of keys is wanted"},
		{"route without destination", "{type: route, gateway: 192.0.2.1}", at + ": is no route: it needs to and via, both of one address family"},
		{"route with a bad mask", "{type: route, destination: 10.0.0.0, netmask: x, gateway: 192.0.2.1}", at + `.destination: "10.0.0.0/x" ` + network},
		{"name server entry", "{type: nameserver, address: [x]}", at + `.address[0]: "x" is not an IP address`},
		{"name server without address", "{type: nameserver, address: ~}", ""},
		{"unknown of name server", "{type: nameserver, address: 192.0.2.1, domain: a}", at + ".domain: is not a key of config[0]; remove it, or use one of address, search, interface"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { said(t, "version: 1\nconfig:\n- "+tt.text+"\n", tt.want) })
	}
}
