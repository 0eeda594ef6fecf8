package netconfig

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"keelson/init/userdata"
)

func TestOpenStackRecorded(t *testing.T) {
	data, err := os.ReadFile("../metadata/openstack/testdata/openstack/latest/network_data.json")
	if err != nil {
		t.Fatal(err)
	}
	plan, problems := Load([]userdata.Document{{Source: "network_data.json", Data: data}})
	if len(problems) != 0 || len(plan.Links) != 1 {
		t.Fatalf("got %+v %v", plan, problems)
	}
	got := fmt.Sprintf("%s %s %d %v %v %v", plan.Links[0].ID, plan.Links[0].Match.MAC, plan.Links[0].MTU, plan.Links[0].Addresses, plan.Links[0].Routes, plan.Nameservers)
	if want := "tapa36babb5-c2 fa:16:3e:46:28:06 1450 [10.0.0.7/24] [{0.0.0.0/0 10.0.0.1 0 false}] [10.0.0.2]"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestOpenStackKinds(t *testing.T) {
	const link = `{"links":[{"id":"a","type":"phy","ethernet_mac_address":"52:54:00:00:00:01","mtu":null}],"networks":[%s],"services":null}`
	for network, want := range map[string]string{
		`{"type":"ipv4_dhcp","link":"a"}`: "true false []", `{"type":"ipv6_dhcp","link":"a"}`: "false true []",
		`{"type":"ipv6_slaac","link":"a"}`:                                             "false false []",
		`{"type":"ipv6","link":"a","ip_address":"2001:db8::7/64","gateway":"fe80::1"}`: "false false [2001:db8::7/64]",
	} {
		plan, problems := Load([]userdata.Document{{Data: fmt.Appendf(nil, link, network)}})
		if len(problems) != 0 || len(plan.Links) != 1 {
			t.Errorf("%s: got %+v %v", network, plan, problems)
			continue
		}
		if got := fmt.Sprint(plan.Links[0].DHCP4, plan.Links[0].DHCP6, plan.Links[0].Addresses); got != want {
			t.Errorf("%s: got %s, want %s", network, got, want)
		}
	}
}

// A link without a kind, as Nova writes it for some network drivers, is a card.
func TestOpenStackLinkWithoutKind(t *testing.T) {
	plan, problems := Load([]userdata.Document{{Data: []byte(`{"services":[],"networks":[{"network_id":"n","link":"tapcd","type":"ipv4_dhcp","id":"network0"}],` +
		`"links":[{"ethernet_mac_address":"52:54:00:00:00:01","mtu":1500,"type":null,"id":"tapcd","vif_id":"cd"}]}`)}})
	if len(problems) != 0 || len(plan.Links) != 1 || plan.Links[0].Kind != Ethernet || !plan.Links[0].DHCP4 || plan.Links[0].MTU != 1500 {
		t.Errorf("got %+v %v", plan, problems)
	}
}

func TestOpenStackRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"links":[{"type":"phy"}],"networks":[]}`:                                                    "line 1: links[0]: has no id",
		`{"links":[{"id":"a"}],"networks":[]}`:                                                        "links[0]: has no ethernet_mac_address",
		"{\"links\":[],\n\"networks\":[{\"link\":\"b\"}]}":                                            "line 2: networks[0].link: names no link",
		`{"links":[{"id":"a","ethernet_mac_address":"x"}],"networks":[]}`:                             "links[0].ethernet_mac_address",
		`{"links":[{"id":"a","ethernet_mac_address":"52:54:00:00:00:01"}],"networks":[{"link":"a"}]}`: "networks[0].type",
	} {
		_, problems := Load([]userdata.Document{{Source: "s", Data: []byte(text)}})
		if !userdata.Refused(problems) || !strings.Contains(problems[0].String(), want) {
			t.Errorf("%s: got %v, want %s", text, problems, want)
		}
	}
}

func FuzzOpenStack(f *testing.F) {
	f.Add([]byte(`{"links":[{"id":"a","ethernet_mac_address":"52:54:00:00:00:01"}],"networks":[{"link":"a","type":"ipv4","ip_address":"10.0.0.1","netmask":"255.0.0.0"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		docs := []userdata.Document{{Data: data}}
		a, p := Load(docs)
		b, q := Load(docs)
		if !reflect.DeepEqual(a, b) || !reflect.DeepEqual(p, q) {
			t.Error("two readings differ")
		}
	})
}
