package scenario

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"keelson/testvm/cidata"
	"keelson/testvm/lan"
	"keelson/testvm/machine"
	"keelson/testvm/qemu"
)

// imds is a metadata service as EC2 has it: a token first. It answers with
// user-data that the test may change.
type imds struct {
	userData atomic.Value // string
	refused  atomic.Int32 // questions without the token
}

func (s *imds) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const token = "dG9rZW4="
	switch {
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") != "":
		w.Write([]byte(token))
	case r.Header.Get("X-aws-ec2-metadata-token") != token:
		s.refused.Add(1)
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == "/latest/meta-data/instance-id":
		w.Write([]byte("i-0123456789abcdef0"))
	case r.URL.Path == "/latest/meta-data/local-hostname":
		w.Write([]byte("ip-169-254-0-15.ec2.internal"))
	case r.URL.Path == "/latest/user-data":
		w.Write([]byte(s.userData.Load().(string)))
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// A machine that SMBIOS places in EC2 asks its metadata: a mistake in the
// user-data shows line and key, and the correction is taken by itself.
func TestScenarioMetadataOfACloud(t *testing.T) {
	needVM(t)
	service := &imds{}
	service.userData.Store("#cloud-config\nruncmd: [ls]\nrke2:\n  rol: server\n")
	serveLoopback(t, service)
	m := newMachine(t, qemu.Direct, func(c *machine.Config) {
		c.Seed = cidata.Volume{} // but for the token, as vendor-data
		c.SMBIOS = []string{"type=1,manufacturer=Amazon EC2,product=m7i.large,serial=ec2-1"}
		c.UserNet = "net=169.254.0.0/16,host=169.254.169.254,dns=169.254.0.3,dhcpstart=169.254.0.15"
	})
	start(t, m)
	says(t, m, m.Mark(), `keelson: user-data: EC2 metadata: user-data: line 4: rke2\.rol: is not a known key`)
	says(t, m, m.Mark(), `keelson: waiting for corrected user-data`)
	mark := m.Console().Mark()
	service.userData.Store("#cloud-config\nruncmd: [ls]\nrke2:\n  role: server\n")
	says(t, m, mark, `keelson: user-data: EC2 metadata: user-data: line 2: runcmd: is not supported`)
	says(t, m, mark, `keelson: boot: user-data: ok`)
	says(t, m, mark, `keelson: boot: network: ok`)
	if n := service.refused.Load(); n != 0 {
		t.Errorf("%d questions came without the token", n)
	}
}

// onLAN plugs cards into a switch that gives no addresses out. seen hears every
// frame that a card sends.
func onLAN(t *testing.T, seen func(port string, frame []byte), names ...string) (cards []qemu.Card) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lan")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	net, err := lan.New(lan.Config{Dir: dir, Seen: seen})
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		port, err := net.Plug(name)
		if err != nil {
			t.Fatal(err)
		}
		cards = append(cards, qemu.Card{Netdev: port.Netdev, MAC: lan.MAC(byte(i + 1))})
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- net.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return cards
}

// Two cards in a bond and the address in a VLAN on it, without any DHCP: the
// network is ready, and frames with the VLAN's tag leave on the first card.
func TestScenarioBondWithVLAN(t *testing.T) {
	needVM(t)
	tagged := make(chan string, 1)
	cards := onLAN(t, func(port string, frame []byte) {
		// IEEE 802.1Q 9.3: the tag is where the type would be, 0x8100, then the VLAN's number in 12 bits.
		if len(frame) > 16 && frame[12] == 0x81 && frame[13] == 0 && frame[14]&0x0f == 0 && frame[15] == 42 {
			select {
			case tagged <- port:
			default:
			}
		}
	}, "1", "2")
	network := strings.NewReplacer("FIRST", cards[0].MAC, "SECOND", cards[1].MAC).Replace(`
version: 2
ethernets:
  a: {match: {macaddress: "FIRST"}}
  b: {match: {macaddress: "SECOND"}}
bonds:
  bond0: {interfaces: [a, b], parameters: {mode: active-backup, primary: a}}
vlans:
  cluster: {id: 42, link: bond0, addresses: [192.0.2.10/24], routes: [{to: default, via: 192.0.2.1}]}
`)
	m := newMachine(t, qemu.Direct, func(c *machine.Config) {
		c.Cards, c.Seed.NetworkConfig = cards, []byte(network)
	})
	start(t, m)
	says(t, m, m.Mark(), `keelson: boot: user-data: ok`)
	says(t, m, m.Mark(), `keelson: boot: network: ok`)
	select {
	case port := <-tagged:
		if port != "1" {
			t.Errorf("the first tagged frame came from card %s, want the primary", port)
		}
	case <-within(t, changeLimit).Done():
		t.Error("no frame with the tag of the VLAN was seen")
	}
}

// One card with a static address, in words of version 1, where nobody answers
// DHCP: the boot reaches its last step, and the machine asks for its gateway
// from that address.
func TestScenarioStaticNetwork(t *testing.T) {
	needVM(t)
	asked := make(chan struct{}, 1)
	cards := onLAN(t, func(_ string, frame []byte) {
		// RFC 826: type 0x0806, then who asks (at 28) and for whom (at 38).
		if len(frame) >= 42 && frame[12] == 0x08 && frame[13] == 0x06 &&
			bytes.Equal(frame[28:32], []byte{192, 0, 2, 10}) && bytes.Equal(frame[38:42], []byte{192, 0, 2, 1}) {
			select {
			case asked <- struct{}{}:
			default:
			}
		}
	}, "1")
	network := strings.ReplaceAll(`
version: 1
config:
- type: physical
  name: lan0
  mac_address: "MAC"
  mtu: 1400
  subnets:
  - {type: static, address: 192.0.2.10/24, gateway: 192.0.2.1, dns_nameservers: [192.0.2.53]}
  - {type: static6, address: "2001:db8::10/64"}
`, "MAC", cards[0].MAC)
	m := newMachine(t, qemu.Direct, func(c *machine.Config) {
		c.Cards, c.Seed.NetworkConfig = cards, []byte(network)
		c.Seed.UserData = []byte("#cloud-config\nrke2: {role: server}\nntp: {servers: [198.51.100.1]}\n")
	})
	start(t, m)
	says(t, m, m.Mark(), `keelson: boot: network: ok`)
	if _, err := m.Booted(within(t, bootLimit)); err != nil {
		t.Error(err)
	}
	select {
	case <-asked:
	case <-within(t, changeLimit).Done():
		t.Error("nobody asked for the gateway from the static address")
	}
}
