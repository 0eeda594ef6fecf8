package netconfig

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"keelson/init/userdata"
)

func num(v int) *int { return &v }

func TestMadeLinks(t *testing.T) {
	card := func(id string) Link { return Link{ID: id, Match: Match{Name: id}, AcceptRA: true, Member: true} }
	full := Bond{Mode: "802.3ad", LACPRate: "fast", HashPolicy: "layer3+4", Select: "count", FailOverMAC: "follow", PrimaryReselect: "failure",
		MIIMonitor: 50, UpDelay: 1, DownDelay: 2, MinLinks: 1, ARPInterval: 3, Notices: num(5), ARPTargets: []netip.Addr{addr("192.0.2.1")}}
	for name, c := range map[string]struct {
		text string
		want []Link
	}{
		"bond, version 2": {"version: 2\nethernets: {a: {}, b: {}}\nbonds:\n  bond0:\n    interfaces: [a, b]\n    dhcp4: true\n    parameters: {mode: active-backup, primary: b}\n",
			[]Link{card("a"), card("b"), {ID: "bond0", Kind: KindBond, Members: []string{"a", "b"}, Match: Match{Name: "bond0"}, AcceptRA: true, DHCP4: true,
				Bond: Bond{Mode: "active-backup", Primary: "b", MIIMonitor: DefaultMIIMonitor}}}},
		"bond, all words": {"version: 2\nethernets: {a: {}}\nbonds:\n  bond0:\n    interfaces: [a]\n    parameters: {mode: 802.3ad, lacp-rate: fast, " +
			"transmit-hash-policy: layer3+4, ad-select: count, fail-over-mac-policy: follow, primary-reselect-policy: failure, mii-monitor-interval: 50, " +
			"up-delay: 1, down-delay: 2, min-links: 1, arp-interval: 3, arp-ip-targets: [192.0.2.1], gratuitous-arp: 5}\n",
			[]Link{card("a"), {ID: "bond0", Kind: KindBond, Members: []string{"a"}, Match: Match{Name: "bond0"}, AcceptRA: true, Bond: full}}},
		"bond, version 1": {"version: 1\nconfig:\n- {type: physical, name: a}\n- type: bond\n  name: bond0\n  mac_address: '52:54:00:00:00:01'\n  bond_interfaces: [a]\n" +
			"  params: {bond-mode: 4, bond_lacp_rate: 1, bond-xmit_hash_policy: layer3+4, bond-miimon: 50, bond-ad_select: 2, bond-fail_over_mac: follow, " +
			"bond-primary_reselect: failure, bond-updelay: 1, bond-downdelay: 2, bond-min-links: 1, bond-arp-interval: 3, bond-arp-ip-target: 192.0.2.1, bond-num_grat_arp: 5}\n  subnets: [{type: dhcp}]\n",
			[]Link{card("a"), {ID: "bond0", Kind: KindBond, Members: []string{"a"}, Match: Match{Name: "bond0"}, MAC: "52:54:00:00:00:01", AcceptRA: true, DHCP4: true, Bond: full}}},
		"bridge, version 2": {"version: 2\nethernets: {a: {}}\nbridges:\n  br0: {interfaces: [a], mtu: 1400, parameters: {stp: true, forward-delay: 4, priority: 9, hello-time: 1, max-age: 7, ageing-time: 5}}\n",
			[]Link{card("a"), {ID: "br0", Kind: Bridge, Members: []string{"a"}, Match: Match{Name: "br0"}, AcceptRA: true, MTU: 1400,
				Bridge: BridgeSettings{STP: true, Forward: num(4), Priority: num(9), Hello: num(1), MaxAge: num(7), Aging: num(5)}}}},
		"bridge, version 1": {"version: 1\nconfig:\n- {type: bridge, name: br0, bridge_interfaces: [a], params: {bridge_stp: 'off', bridge_fd: 0, bridge_maxwait: 0}}\n- {type: physical, name: a}\n",
			[]Link{{ID: "br0", Kind: Bridge, Members: []string{"a"}, Match: Match{Name: "br0"}, AcceptRA: true, Bridge: BridgeSettings{Forward: num(0)}}, card("a")}},
		"bridge, in numbers": {"version: 1\nconfig:\n- {type: bridge, name: br0, bridge_interfaces: [a], params: {bridge_stp: 1}}\n- {type: physical, name: a}\n",
			[]Link{{ID: "br0", Kind: Bridge, Members: []string{"a"}, Match: Match{Name: "br0"}, AcceptRA: true, Bridge: BridgeSettings{STP: true}}, card("a")}},
		"vlan": {"version: 2\nethernets: {eth0: {dhcp4: true}}\nvlans:\n  eth0.7: {id: 7, link: eth0, macaddress: '52:54:00:00:00:01', addresses: [192.0.2.1/24]}\n",
			[]Link{{ID: "eth0", Match: Match{Name: "eth0"}, DHCP4: true, AcceptRA: true},
				{ID: "eth0.7", Kind: VLAN, VLAN: 7, Parent: "eth0", MAC: "52:54:00:00:00:01", Match: Match{Name: "eth0.7"}, AcceptRA: true, Addresses: []netip.Prefix{prefix("192.0.2.1/24")}}}},
		"vlan, version 1": {"version: 1\nconfig: [{type: physical, name: eth0}, {type: vlan, name: v, vlan_link: eth0, vlan_id: 7}]\n",
			[]Link{{ID: "eth0", Match: Match{Name: "eth0"}, AcceptRA: true}, {ID: "v", Kind: VLAN, VLAN: 7, Parent: "eth0", Match: Match{Name: "v"}, AcceptRA: true}}},
		"of OpenStack": {`{"links":[{"id":"p0","type":"phy","ethernet_mac_address":"52:54:00:00:00:01"},
 {"id":"b","type":"bond","bond_links":["p0"],"bond_mode":"802.3ad","bond_xmit_hash_policy":"layer3+4","bond_miimon":100,"ethernet_mac_address":"52:54:00:00:00:01"},
 {"id":"v","type":"vlan","vlan_link":"b","vlan_id":101,"vlan_mac_address":"52:54:00:00:00:02"}],"networks":[{"type":"ipv4_dhcp","link":"v"}]}`,
			[]Link{{ID: "p0", Match: Match{MAC: "52:54:00:00:00:01"}, AcceptRA: true, Member: true},
				{ID: "b", Kind: KindBond, Members: []string{"p0"}, Match: Match{Name: "bond0"}, MAC: "52:54:00:00:00:01", AcceptRA: true,
					Bond: Bond{Mode: "802.3ad", HashPolicy: "layer3+4", MIIMonitor: 100}},
				{ID: "v", Kind: VLAN, VLAN: 101, Parent: "b", Match: Match{Name: "vlan0.101"}, MAC: "52:54:00:00:00:02", AcceptRA: true, DHCP4: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			plan := said(t, c.text, "")
			if !reflect.DeepEqual(plan.Links, c.want) {
				t.Errorf("got\n%+v\nwant\n%+v", plan.Links, c.want)
			}
		})
	}
}

func TestMadeLinksRefused(t *testing.T) {
	const cards = "version: 2\nethernets: {a: {}, b: {dhcp4: true}}\n"
	for text, want := range map[string]string{
		cards + "bonds:\n  x: {interfaces: [c]}\n":                               `line 4: bonds.x: takes in "c", which is no link`,
		cards + "bonds:\n  x: {interfaces: [b]}\n":                               "line 2: ethernets.b: is part of x, which is to have its addresses",
		cards + "bonds:\n  x: {interfaces: [a]}\n  y: {interfaces: [a]}\n":       "line 5: bonds.y: takes in a, which is part of x already",
		cards + "bonds:\n  x: {interfaces: [x]}\n":                               "bonds.x: cannot take in x",
		cards + "bridges:\n  x: {}\n  y: {interfaces: [x]}\n":                    "bridges.y: cannot take in x",
		cards + "bridges:\n  a: {}\n":                                            "bridges.a: has the name of another link",
		cards + "bonds:\n  x: {interfaces: [a], parameters: {primary: b}}\n":     `bonds.x: has the primary "b", which is no member`,
		cards + "bonds:\n  x: {parameters: {mode: fast}}\n":                      `bonds.x.parameters.mode: "fast" is not known; use one of balance-rr, active-backup`,
		cards + "bonds:\n  x: {parameters: {mode: 7}}\n":                         `"7" is not known`,
		cards + "bonds:\n  x: {parameters: {mod: 1}}\n":                          "did you mean mode?",
		cards + "bonds:\n  x: {parameters: {arp-ip-targets: ['2001:db8::1']}}\n": "is not an IPv4 address",
		cards + "bonds:\n  name-that-is-too-long: {}\n":                          "is not the name of an interface",
		cards + "bridges:\n  x: {parameters: {forward-delay: 99}}\n":             "line 4: bridges.x.parameters.forward-delay: is not a whole number from 0 to 30",
		cards + "vlans:\n  x: {id: 4095, link: a}\n":                             "vlans.x.id: is not a whole number from 1 to 4094",
		cards + "vlans:\n  x: {link: a}\n":                                       "vlans.x: needs id and link",
		cards + "vlans:\n  x: {id: 1, link: z}\n":                                `vlans.x: is on "z", which is no ethernet, bond or bridge`,
		cards + "vlans:\n  x: {id: 1, link: a, interfaces: [b]}\n":               "vlans.x.interfaces: is not a key of vlans.x",
		"version: 1\nconfig:\n- {type: vlan, name: x}\n":                         "line 3: config[0]: needs a name, and a vlan its vlan_id",
		"version: 1\nconfig:\n- {type: physical, name: x, vlan_id: 1}\n":         "config[0].vlan_id: is not a key of config[0]",
		`{"links":[{"id":"b","type":"bond","bond_links":["z"]}],"networks":[]}`:  `takes in "z"`,
		`{"links":[{"id":"b","type":"bond","bond_mode":"none"}],"networks":[]}`:  `links[0].bond_mode: "none" is not known`,
	} {
		_, problems := Load([]userdata.Document{{Source: "net", Data: []byte(text)}})
		if !userdata.Refused(problems) || !strings.Contains(fmt.Sprint(problems), want) {
			t.Errorf("%s: got %v, want %s", text, problems, want)
		}
	}
	said(t, cards+"bridges:\n  x: {parameters: {path-cost: {a: 5}}}\n", "note net: line 4: bridges.x.parameters.path-cost: is not supported: ports have the kernel's cost and priority (passed over)")
}

func TestOverrides(t *testing.T) {
	plan := said(t, "version: 2\nethernets:\n  a:\n    dhcp4-overrides: {use-routes: false, use-mtu: no, use-ntp: false, use-domains: false, use-hostname: false, send-hostname: false, hostname: x}\n    dhcp6-overrides: {use-ntp: false}\n", "")
	want := Overrides{IgnoreRoutes: true, IgnoreMTU: true, IgnoreNTP: true, IgnoreDomains: true, Anonymous: true, Hostname: "x"}
	if got := plan.Links[0]; got.DHCP4Overrides != want || got.DHCP6Overrides != (Overrides{IgnoreNTP: true}) {
		t.Errorf("got %+v", got)
	}
}
