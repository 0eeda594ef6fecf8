package agent

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"keelson/node/config"
)

// Our servers say which pod network the cluster has, and it goes before the machine's own; RKE2's servers do not.
func TestNetworkOfTheCluster(t *testing.T) {
	for _, c := range []struct{ own, said, want, err string }{
		{own: config.CNIFlannel, said: `,"CNI":"none"`, want: config.CNINone},
		{own: config.CNINone, said: `,"CNI":"flannel"`, want: config.CNIFlannel},
		{own: config.CNINone, said: "", want: config.CNINone},
		{own: config.CNIFlannel, said: `,"CNI":"canal"`, err: `pod network is "canal"`},
	} {
		t.Run(c.own+c.said, func(t *testing.T) {
			d, err := parseDocument(fmt.Appendf(nil, `{"ClusterDNS":"10.43.0.10","ClusterDomain":"cluster.local",
				"ClusterIPRange":{"IP":"10.42.0.0","Mask":"//8AAA=="},"ServiceIPRange":{"IP":"10.43.0.0","Mask":"//8AAA=="}%s}`, c.said))
			if err != nil {
				t.Fatal(err)
			}
			own := config.Default()
			own.CNI, own.Server, own.Token = c.own, "https://10.0.0.1:9345", "secret"
			got, err := applied(d, own, config.Host{Name: "agent-1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.9")}})
			switch {
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("got %v, want %s", err, c.err)
			case c.err == "" && err != nil:
				t.Error(err)
			case c.err == "" && got.CNI != c.want:
				t.Errorf("got %s, want %s", got.CNI, c.want)
			}
		})
	}
}
