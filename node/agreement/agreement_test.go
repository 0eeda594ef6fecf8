package agreement

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"keelson/node/config"
)

// resolved is what a server with no settings of its own ends up with.
func resolved(t *testing.T, change func(*config.Config)) config.Config {
	t.Helper()
	c := config.Default()
	if change != nil {
		change(&c)
	}
	c, err := c.Resolve(config.Host{Name: "cp-1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.2.15")}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rke2 is the document of an RKE2 server with default settings, shortened to what matters here and something that does
// not; the byte shape of addresses and networks is Go's.
const rke2 = `{"AdvertiseIP":"","ClusterDNSs":["10.43.0.10"],"ClusterIPRanges":[{"IP":"10.42.0.0","Mask":"//8AAA=="}],
"ClusterDNS":"10.43.0.10","ClusterDomain":"cluster.local","ClusterIPRange":{"IP":"10.42.0.0","Mask":"//8AAA=="},"DisableCCM":false,
"DisableHelmController":false,"DisableNPC":true,"DisableServiceLB":true,"EncryptSecrets":true,"EncryptProvider":"aescbc","EmbeddedRegistry":false,
"FlannelBackend":"none","FlannelIPv6Masq":false,"FlannelExternalIP":false,"EgressSelectorMode":"agent",
"ServiceIPRange":{"IP":"10.43.0.0","Mask":"//8AAA=="},"ServiceIPRanges":[{"IP":"10.43.0.0","Mask":"//8AAA=="}],"SupervisorMetrics":false,"HTTPSPort":6443}`

func TestDefaultsAgreeWithRKE2(t *testing.T) {
	if err := Check(Of(resolved(t, nil)), []byte(rke2)); err != nil {
		t.Error(err)
	}
}

// What we serve must read back as ourselves: servers of one build always agree.
func TestOwnDocumentAgrees(t *testing.T) {
	for name, change := range map[string]func(*config.Config){
		"defaults": nil,
		"all set": func(c *config.Config) {
			c.ClusterCIDR = []netip.Prefix{netip.MustParsePrefix("10.50.0.0/16")}
			c.ServiceCIDR = []netip.Prefix{netip.MustParsePrefix("10.60.0.0/16")}
			c.ClusterDomain, c.EgressSelectorMode, c.SecretsEncryptionProvider = "k.example", "disabled", "secretbox"
			c.DisableCloudController = true
		},
		"two families": func(c *config.Config) {
			c.CNI = config.CNINone
			c.ClusterCIDR = []netip.Prefix{netip.MustParsePrefix("10.50.0.0/16"), netip.MustParsePrefix("fd00:42::/56")}
			c.ServiceCIDR = []netip.Prefix{netip.MustParsePrefix("10.60.0.0/16"), netip.MustParsePrefix("fd00:43::/112")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			own := Of(resolved(t, change))
			document, err := json.Marshal(own)
			if err != nil {
				t.Fatal(err)
			}
			if err := Check(own, document); err != nil {
				t.Error(err)
			}
		})
	}
}

// Every key is found by itself, with both values, and once however many fields it has.
func TestEachDifferenceIsNamed(t *testing.T) {
	for _, c := range []struct{ change, want string }{
		{`"ClusterDomain":"other.local"`, `cluster-domain is "cluster.local" here and "other.local" in the cluster`},
		{`"ClusterDNSs":["10.43.0.53"],"ClusterDNS":"10.43.0.53"`, "cluster-dns is 10.43.0.10 here and 10.43.0.53 in the cluster"},
		{`"ClusterIPRanges":[{"IP":"10.52.0.0","Mask":"//8AAA=="}],"ClusterIPRange":{"IP":"10.52.0.0","Mask":"//8AAA=="}`, "cluster-cidr is 10.42.0.0/16 here and 10.52.0.0/16 in the cluster"},
		{`"ServiceIPRanges":null,"ServiceIPRange":null`, "service-cidr is 10.43.0.0/16 here and nothing in the cluster"},
		{`"DisableCCM":true`, "disable-cloud-controller is false here and true in the cluster"},
		{`"DisableHelmController":true`, "disable-helm-controller is false here and true in the cluster"},
		{`"DisableNPC":false`, "disable-network-policy is true here and false in the cluster"},
		{`"DisableServiceLB":false`, "disable-service-lb is true here and false in the cluster"},
		{`"EncryptSecrets":false`, "secrets-encryption is true here and false in the cluster"},
		{`"EncryptProvider":"secretbox"`, `secrets-encryption-provider is "aescbc" here and "secretbox" in the cluster`},
		{`"EncryptProvider":""`, ""},
		{`"EgressSelectorMode":"cluster"`, `egress-selector-mode is "agent" here and "cluster" in the cluster`},
		{`"EgressSelectorMode":""`, ""},
		{`"EmbeddedRegistry":true`, "embedded-registry is false here and true in the cluster"},
		{`"FlannelBackend":"vxlan"`, `flannel-backend is "none" here and "vxlan" in the cluster`},
		{`"PodNetworkBackend":"host-gw"`, `flannel-backend is "vxlan" here and "host-gw" in the cluster`},
		{`"PodNetworkBackend":""`, ""},
		{`"SupervisorMetrics":true`, "supervisor-metrics is false here and true in the cluster"},
		{`"HTTPSPort":7443`, ""},
	} {
		t.Run(c.change, func(t *testing.T) {
			document := strings.TrimSuffix(rke2, "}") + "," + c.change + "}" // the later of two equal names counts
			err := Check(Of(resolved(t, nil)), []byte(document))
			var differs *ErrDiffers
			switch {
			case c.want == "" && err != nil:
				t.Errorf("got %v, want agreement", err)
			case c.want != "" && (!errors.As(err, &differs) || len(differs.All) != 1 || !strings.Contains(err.Error(), c.want+";")):
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestNoDocument(t *testing.T) {
	for _, document := range []string{"", "pong", "{}", `{"kind":"Status","code":503}`, `{"ClusterIPRange":"x"}`} {
		err := Check(Of(resolved(t, nil)), []byte(document))
		var differs *ErrDiffers
		if err == nil || errors.As(err, &differs) {
			t.Errorf("%q: got %v, want an error that is no difference", document, err)
		}
	}
}

// A field without a key would be compared and could not be named.
func TestEveryFieldHasAKey(t *testing.T) {
	for i := range reflect.TypeFor[Critical]().NumField() {
		if f := reflect.TypeFor[Critical]().Field(i); f.Tag.Get("key") == "" {
			t.Errorf("%s has no key", f.Name)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(rke2))
	f.Add([]byte(`{"ClusterDomain":"x","ClusterIPRanges":[null],"ClusterDNSs":[""]}`))
	own := Of(config.Default())
	f.Fuzz(func(t *testing.T, document []byte) {
		if err := Check(own, document); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}
