package agent

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"keelson/node/config"
)

func newLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func parse(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

const (
	net4 = `{"IP":"10.42.0.0","Mask":"//8AAA=="}`
	svc4 = `{"IP":"10.96.0.0","Mask":"//AAAA=="}`
	net6 = `{"IP":"fd00:42::","Mask":"/////////wAAAAAAAAAAAA=="}`
	svc6 = `{"IP":"fd00:43::","Mask":"//////////////////8AAA=="}`
)

func TestDocument(t *testing.T) {
	h := config.Host{Name: "host", Addresses: parse("10.0.2.15", "fd00::15")}
	for _, c := range []struct {
		name, text, fails string
		check             func(config.Config) bool
	}{
		{"as k3s writes it", `{"ClusterDomain":"x.y","ClusterDNSs":["10.96.0.10"],"ClusterIPRanges":[` + net4 + `],"ServiceIPRanges":[` + svc4 + `],"DisableCCM":true,"DisableKubeProxy":true,"EmbeddedRegistry":true}`, "",
			func(c config.Config) bool {
				return c.EmbeddedRegistry && c.ClusterDomain == "x.y" && c.ClusterDNS[0].String() == "10.96.0.10" && c.ServiceCIDR[0].String() == "10.96.0.0/12" &&
					c.ClusterCIDR[0].String() == "10.42.0.0/16" && c.DisableCloudController && c.DisableKubeProxy && slices.Equal(c.NodeIP, parse("10.0.2.15"))
			}},
		{"one of each alone", `{"ClusterDomain":"x","ClusterDNS":"10.96.0.10","ClusterIPRange":` + net4 + `,"ServiceIPRange":` + svc4 + `}`, "",
			func(c config.Config) bool {
				return c.ClusterDNS[0].String() == "10.96.0.10" && !c.DisableKubeProxy && !c.EmbeddedRegistry
			}},
		{"two families", `{"ClusterDomain":"x","ClusterDNSs":["10.96.0.10","fd00:43::a"],"ClusterIPRanges":[` + net4 + `,` + net6 + `],"ServiceIPRanges":[` + svc4 + `,` + svc6 + `]}`, "",
			func(c config.Config) bool { return slices.Equal(c.NodeIP, parse("10.0.2.15", "fd00::15")) }},
		{"IPv6 alone", `{"ClusterDomain":"x","ClusterDNSs":["fd00:43::a"],"ClusterIPRanges":[` + net6 + `],"ServiceIPRanges":[` + svc6 + `]}`, "",
			func(c config.Config) bool { return slices.Equal(c.NodeIP, parse("fd00::15")) }},
		{"small shares, which are the servers' to judge", `{"ClusterDomain":"x","ClusterDNSs":["10.96.0.10"],"ClusterIPRanges":[{"IP":"10.42.0.0","Mask":"////gA=="}],"ServiceIPRanges":[` + svc4 + `]}`, "",
			func(c config.Config) bool { return c.ClusterCIDR[0].String() == "10.42.0.0/25" }},
		{"no JSON", `hello`, "read the cluster's settings", nil},
		{"something else", `{"kind":"Status"}`, "is it a server of a cluster", nil},
		{"null for a network", `{"ClusterDomain":"x","ClusterDNSs":["10.96.0.10"],"ClusterIPRanges":[null],"ServiceIPRanges":[` + svc4 + `]}`, "networks of pods: one is missing", nil},
		{"a mask of the wrong length", `{"ClusterDomain":"x","ClusterDNSs":["10.96.0.10"],"ClusterIPRanges":[` + net4 + `],"ServiceIPRanges":[{"IP":"10.96.0.0","Mask":"//8="}]}`, "networks of services", nil},
		{"no address", `{"ClusterDomain":"x","ClusterDNSs":[""],"ClusterIPRanges":[` + net4 + `],"ServiceIPRanges":[` + svc4 + `]}`, "DNS address", nil},
		{"DNS outside", `{"ClusterDomain":"x","ClusterDNSs":["10.1.0.10"],"ClusterIPRanges":[` + net4 + `],"ServiceIPRanges":[` + svc4 + `]}`, "cluster-dns", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings := config.Default()
			settings.NodeName = "w-1"
			d, err := parseDocument([]byte(c.text))
			if err == nil {
				settings, err = d.lay(settings)
			}
			if err == nil {
				settings, err = settings.Resolve(h)
			}
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("got %v, want %q in it", err, c.fails)
				}
				return
			}
			if err != nil || !c.check(settings) {
				t.Errorf("got %+v, %v", settings, err)
			}
		})
	}
}

// applied is what an agent does with the document, once the machine has its addresses.
func applied(d document, own config.Config, h config.Host) (config.Config, error) {
	c, err := d.lay(own)
	if err != nil {
		return c, err
	}
	return c.Resolve(h)
}

// What the node's own settings switch off stays off, and what only the cluster decides is not theirs.
func TestDocumentAndOwnSettings(t *testing.T) {
	own := config.Default()
	own.NodeName, own.DisableKubeProxy, own.ClusterDomain = "w-1", true, "mine"
	d, err := parseDocument([]byte(`{"ClusterDomain":"x","ClusterDNS":"10.96.0.10","ClusterIPRange":` + net4 + `,"ServiceIPRange":` + svc4 + `}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := applied(d, own, config.Host{Addresses: parse("10.0.2.15")})
	if err != nil || !got.DisableKubeProxy || got.ClusterDomain != "x" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"ClusterDomain":"x","ClusterDNS":"10.96.0.10","ClusterIPRange":` + net4 + `,"ServiceIPRange":` + svc4 + `}`))
	f.Add([]byte(`{"ClusterIPRanges":[{"IP":"","Mask":"AA=="}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		d, err := parseDocument(content)
		if err != nil {
			return
		}
		settings := config.Default()
		settings.NodeName = "w-1"
		got, err := applied(d, settings, config.Host{Addresses: parse("10.0.2.15", "fd00::15")})
		if err == nil && (len(got.ClusterDNS) == 0 || len(got.ClusterCIDR) == 0 || len(got.NodeIP) == 0) {
			t.Errorf("%s: taken with nothing in it", content)
		}
	})
}
