package netconfig

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"keelson/init/userdata"
)

func load(text string) (Plan, []userdata.Problem) {
	return Load([]userdata.Document{{Source: "old", Data: []byte("version: 9")}, {Source: "net", Data: []byte(text)}})
}

// show makes a plan comparable line by line.
func show(p Plan) string {
	var b strings.Builder
	for _, l := range p.Links {
		fmt.Fprintf(&b, "%s match=%s/%s/%s set=%s dhcp=%v/%v ra=%v addr=%v routes=%v dns=%v %v mtu=%d metric=%d nodns=%v\n",
			l.ID, l.Match.Name, l.Match.MAC, l.Match.Driver, l.SetName, l.DHCP4, l.DHCP6, l.AcceptRA, l.Addresses,
			routes(l.Routes), l.Nameservers, l.Search, l.MTU, l.Metric, l.DHCP4Overrides.IgnoreDNS || l.DHCP6Overrides.IgnoreDNS)
	}
	fmt.Fprintf(&b, "dns=%v %v routes=%v disabled=%v", p.Nameservers, p.Search, routes(p.Routes), p.Disabled)
	return b.String()
}

func routes(rs []Route) (out []string) {
	for _, r := range rs {
		out = append(out, fmt.Sprintf("%v>%v/%d/%v", r.To, r.Via, r.Metric, r.OnLink))
	}
	return out
}

func TestLoad(t *testing.T) {
	const none = "dns=[] [] routes=[] disabled=false"
	tests := []struct{ name, text, want string }{
		{"empty", "", none},
		{"no links", "version: 2\n", none},
		{"disabled", "network: {config: disabled}\n", "dns=[] [] routes=[] disabled=true"},
		{"dhcp by pattern", "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    all:\n      match: {name: 'en*'}\n      dhcp4: true\n      dhcp6: yes\n",
			"all match=en*// set= dhcp=true/true ra=true addr=[] routes=[] dns=[] [] mtu=0 metric=0 nodns=false\n" + none},
		{"static", `version: 2
ethernets:
  eth0:
    match: {macaddress: "52:54:00:AB:CD:EF", driver: virtio_net}
    set-name: lan0
    accept-ra: false
    addresses: [192.0.2.10/24, "2001:db8::10/64"]
    gateway4: 192.0.2.1
    routes:
    - {to: 10.1.2.3/8, via: 192.0.2.2, metric: 50, on-link: true}
    - {to: default, via: "2001:db8::1"}
    nameservers: {addresses: [192.0.2.53], search: [a.example, b.example]}
    mtu: 9000
    dhcp4-overrides: {use-dns: false, route-metric: 7}
`, "eth0 match=/52:54:00:ab:cd:ef/virtio_net set=lan0 dhcp=false/false ra=false addr=[192.0.2.10/24 2001:db8::10/64] " +
			"routes=[0.0.0.0/0>192.0.2.1/0/false 10.0.0.0/8>192.0.2.2/50/true ::/0>2001:db8::1/0/false] " +
			"dns=[192.0.2.53] [a.example b.example] mtu=9000 metric=7 nodns=true\n" + none},
		{"version 1", `version: 1
config:
- type: physical
  name: eth0
  mac_address: "52:54:00:ab:cd:ef"
  mtu: 1400
  subnets:
  - {type: static, address: 192.0.2.10, netmask: 255.255.255.0, gateway: 192.0.2.1, dns_nameservers: [192.0.2.53], dns_search: a.example}
  - {type: static6, address: "2001:db8::10/64"}
- {type: physical, name: eth1, subnets: [{type: dhcp4, control: auto}, {type: dhcp6}]}
- {type: nameserver, address: 192.0.2.54, search: [b.example]}
- {type: route, destination: 10.0.0.0, netmask: 255.0.0.0, gateway: 192.0.2.2, metric: 3}
- {type: loopback, name: lo}
`, "eth0 match=/52:54:00:ab:cd:ef/ set=eth0 dhcp=false/false ra=true addr=[192.0.2.10/24 2001:db8::10/64] " +
			"routes=[0.0.0.0/0>192.0.2.1/0/false] dns=[192.0.2.53] [a.example] mtu=1400 metric=0 nodns=false\n" +
			"eth1 match=eth1// set= dhcp=true/true ra=true addr=[] routes=[] dns=[] [] mtu=0 metric=0 nodns=false\n" +
			"dns=[192.0.2.54] [b.example] routes=[10.0.0.0/8>192.0.2.2/3/false] disabled=false"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plan, problems := load(tt.text)
			if userdata.Refused(problems) {
				t.Fatal(problems)
			}
			if got := show(plan); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestProblems(t *testing.T) {
	eth := func(s string) string { return "version: 2\nethernets:\n  eth0:\n    " + s + "\n" }
	tests := []struct{ name, text, want string }{
		{"broken", "version: 2\nethernets: {\n", "net: line 2: not valid YAML"},
		{"no version", "ethernets: {}\n", "net: line 1: version: is missing"},
		{"version", "version: 3\n", "version: is not a whole number from 1 to 2"},
		{"a list", "- a\n", "net: line 1: is a list where a map"},
		{"bonds", "version: 2\nbonds: {bond0: {interfaces: [a]}}\n", "net: line 2: bonds.bond0: takes in \"a\", which is no link of this document"},
		{"vlans", "version: 2\nvlans: {v: {}}\n", "vlans.v: needs id and link"},
		{"top key", "version: 2\nethernet: {}\n", "is not a key here; did you mean ethernets?"},
		{"key", eth("dhpc4: true"), "net: line 4: ethernets.eth0.dhpc4: is not a key of ethernets.eth0; did you mean dhcp4?"},
		{"bool", eth("dhcp4: maybe"), "ethernets.eth0.dhcp4: is a text where true or false"},
		{"address", eth("addresses: [192.0.2.10]"), "ethernets.eth0.addresses[0]: \"192.0.2.10\" is not an address with its length"},
		{"addresses", eth("addresses: 192.0.2.10/24"), "is a text where a list"},
		{"gateway", eth("gateway4: router"), "is not an IP address"},
		{"mac", eth("match: {macaddress: 1}"), "is not a MAC address"},
		{"match key", eth("match: {mac: x}"), "is not a key of ethernets.eth0.match"},
		{"name", eth("set-name: a/b"), "is not the name of an interface"},
		{"pattern", eth("match: {name: '['}"), "is not a pattern"},
		{"mtu", eth("mtu: 1"), "is not a whole number from 576"},
		{"search", eth("nameservers: {search: ['a b']}"), "is not a domain"},
		{"route", eth("routes: [{via: 192.0.2.1}]"), "net: line 4: ethernets.eth0.routes[0]: is no route"},
		{"route families", eth("routes: [{to: 10.0.0.0/8, via: '2001:db8::1'}]"), "both of one address family"},
		{"route key", eth("routes: [{to: default, gw: 192.0.2.1}]"), "is not a key of ethernets.eth0.routes[0]"},
		{"v1 type", "version: 1\nconfig: [{type: wifi}]\n", "net: line 2: config[0].type: \"wifi\" is not a type"},
		{"v1 bond", "version: 1\nconfig: [{type: bond}]\n", "config[0]: needs a name"},
		{"v1 nameless", "version: 1\nconfig: [{type: physical}]\n", "neither name nor mac_address"},
		{"v1 subnet", "version: 1\nconfig: [{type: physical, name: a, subnets: [{type: x}]}]\n", "is not a kind of subnet"},
		{"v1 static", "version: 1\nconfig: [{type: physical, name: a, subnets: [{type: static}]}]\n", "static without an address"},
		{"v1 netmask", "version: 1\nconfig: [{type: physical, name: a, subnets: [{type: static, address: 192.0.2.1, netmask: x}]}]\n", "is not an address with its length"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := load(tt.text)
			if len(problems) == 0 || !strings.Contains(problems[0].String(), tt.want) || !problems[0].Fatal {
				t.Errorf("got %v, want a fatal %q", problems, tt.want)
			}
		})
	}
}

func TestFits(t *testing.T) {
	tests := []struct {
		name string
		m    Match
		want bool
	}{
		{"nothing matches nothing", Match{}, false},
		{"name", Match{Name: "eth?"}, true},
		{"other name", Match{Name: "en*"}, false},
		{"mac in other case", Match{MAC: "52:54:00:ab:cd:ef"}, true},
		{"driver", Match{Driver: "virtio*"}, true},
		{"all must fit", Match{Name: "eth0", Driver: "e1000"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.m.Fits("eth0", "52:54:00:AB:CD:EF", "virtio_net"); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("version: 2\nethernets: {a: {addresses: [192.0.2.1/24], routes: [{to: default, via: 192.0.2.2}]}}\n"))
	f.Add([]byte("version: 1\nconfig: [{type: physical, name: a, subnets: [{type: static, address: 192.0.2.1, netmask: 255.0.0.0}]}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		plan, problems := Load([]userdata.Document{{Source: "f", Data: data}})
		if userdata.Refused(problems) {
			return
		}
		again, _ := Load([]userdata.Document{{Source: "f", Data: data}})
		if !reflect.DeepEqual(plan, again) {
			t.Error("two readings differ")
		}
		for _, l := range plan.Links {
			if l.Match == (Match{}) {
				t.Errorf("link %q matches nothing", l.ID)
			}
			for _, a := range l.Addresses {
				if !a.IsValid() {
					t.Errorf("invalid address in %q", l.ID)
				}
			}
			for _, r := range l.Routes {
				if !r.To.IsValid() {
					t.Errorf("invalid route in %q", l.ID)
				}
			}
		}
	})
}
