package bootserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"path/filepath"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const url = "http://10.0.2.2:8080/machine.efi"

// mac is the asking machine's.
func mac() net.HardwareAddr { return net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56} }

// asked is a frame with a message to the server's port.
func asked(t testing.TB, kind dhcpv4.MessageType, class string) []byte {
	t.Helper()
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(mac()), dhcpv4.WithMessageType(kind), dhcpv4.WithOption(dhcpv4.OptClassIdentifier(class)))
	if err != nil {
		t.Fatal(err)
	}
	f := packet(m.ToBytes())
	binary.BigEndian.PutUint16(f[ethernet+22:], serverPort)
	return f
}

func TestReply(t *testing.T) {
	answer := reply(asked(t, dhcpv4.MessageTypeDiscover, "HTTPClient:Arch:00016:UNDI:003001"), url)
	if answer == nil {
		t.Fatal("a question for HTTP boot has no answer")
	}
	if got, want := answer[:6], bytes.Repeat([]byte{0xff}, 6); !bytes.Equal(got, want) {
		t.Errorf("receiver: got %x, want %x: the machine has no address yet", got, want)
	}
	ip := answer[ethernet:]
	if got, want := int(binary.BigEndian.Uint16(ip[2:])), len(ip); got != want {
		t.Errorf("length in the IP header: got %d, want %d", got, want)
	}
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	if got := sum>>16 + sum&0xffff; got != 0xffff {
		t.Errorf("sum over the IP header: got %#x, want 0xffff (RFC 1071)", got)
	}
	if got := binary.BigEndian.Uint16(ip[22:]); got != clientPort {
		t.Errorf("port: got %d, want %d", got, clientPort)
	}
	m, err := dhcpv4.FromBytes(ip[28:])
	if err != nil {
		t.Fatal(err)
	}
	if got := m.MessageType(); got != dhcpv4.MessageTypeOffer {
		t.Errorf("message: got %v, want an offer", got)
	}
	if !m.YourIPAddr.IsUnspecified() {
		t.Errorf("address: got %v, want none: another server gives those", m.YourIPAddr)
	}
	if got := m.ClassIdentifier(); got != httpClient {
		t.Errorf("class: got %q, want %q", got, httpClient)
	}
	if got := m.BootFileNameOption(); got != url {
		t.Errorf("boot file: got %q, want %q", got, url)
	}
	if got := m.ClientHWAddr; !bytes.Equal(got, mac()) {
		t.Errorf("machine: got %v, want %v", got, mac())
	}
}

func TestNobodyElseIsAnswered(t *testing.T) {
	question := asked(t, dhcpv4.MessageTypeDiscover, "HTTPClient:Arch:00016")
	cut := func(n int) []byte { return question[:n] }
	set := func(at int, b byte) []byte {
		f := bytes.Clone(question)
		f[at] = b
		return f
	}
	for name, frame := range map[string][]byte{
		"PXE":                     asked(t, dhcpv4.MessageTypeDiscover, "PXEClient:Arch:00007"),
		"no class":                asked(t, dhcpv4.MessageTypeDiscover, ""),
		"a request":               asked(t, dhcpv4.MessageTypeRequest, "HTTPClient:Arch:00016"),
		"empty":                   nil,
		"cut in the IP header":    cut(ethernet + 19),
		"cut in the message":      cut(len(question) - 1),
		"IPv6":                    set(12, 0x86),
		"another version":         set(ethernet, 0x65),
		"TCP":                     set(ethernet+9, 6),
		"another port":            set(ethernet+23, 69),
		"header beyond the frame": set(ethernet, 0x4f)[:ethernet+40],
	} {
		t.Run(name, func(t *testing.T) {
			if got := reply(frame, url); got != nil {
				t.Errorf("got an answer of %d bytes, want none", len(got))
			}
		})
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	s, err := New(Config{Dir: dir, URL: url})
	if err != nil {
		t.Fatal(err)
	}
	wire, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "wire"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer wire.Close()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	question := asked(t, dhcpv4.MessageTypeDiscover, "HTTPClient:Arch:00019")
	for _, frame := range [][]byte{{1, 2, 3}, question} {
		if _, err := wire.WriteTo(frame, s.conn.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	buffer := make([]byte, maxFrame)
	n, err := wire.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(buffer[:n], []byte(url)) {
		t.Errorf("the answer does not name %s", url)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run: got %v, want no error at its end", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]Config{
		"no URL":    {Dir: t.TempDir()},
		"no folder": {Dir: filepath.Join(t.TempDir(), "none"), URL: url},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add(asked(f, dhcpv4.MessageTypeDiscover, "HTTPClient:Arch:00016"))
	f.Add(asked(f, dhcpv4.MessageTypeDiscover, "PXEClient"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		answer := reply(frame, url)
		if answer != nil && !bytes.Contains(answer, []byte(url)) {
			t.Errorf("an answer without the URL: %x", answer)
		}
	})
}
