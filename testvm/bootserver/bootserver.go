// Package bootserver tells machines on a virtual wire which program to start by UEFI's HTTP boot, as a site's own boot
// server does beside a router that knows nothing of it.
//
// The addresses come from QEMU's user networking, whose DHCP server has no such option; this one is a second DHCP server,
// which offers no address but a URL (UEFI 2.10, 24.7.3: "the DHCP service and the HTTP boot service are separate"). It
// never answers a machine that asks for anything but HTTP boot, and serves no file. Package qemu puts it on the wire;
// scenarios start it.
package bootserver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	maxFrame    = 65536
	ethernet    = 14 // bytes of an Ethernet header
	etherTypeIP = 0x0800
	udp         = 17
	serverPort  = 67
	clientPort  = 68
	httpClient  = "HTTPClient" // how option 60 begins, of the question and of the answer
)

// Config is one boot server.
type Config struct {
	Dir string // an empty folder of its own, with a short path, for the two ends of the wire
	URL string // of the program, "http://10.0.2.2:8080/machine.efi"
}

// Server answers on one wire.
type Server struct {
	cfg  Config
	conn *net.UnixConn
	peer *net.UnixAddr
}

// New opens the server's end of the wire.
func New(c Config) (*Server, error) {
	if c.URL == "" {
		return nil, errors.New("make boot server: no URL to tell")
	}
	ours := filepath.Join(c.Dir, "server")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: ours, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("make boot server: %w", err)
	}
	return &Server{cfg: c, conn: conn, peer: &net.UnixAddr{Name: filepath.Join(c.Dir, "wire"), Net: "unixgram"}}, nil
}

// Netdev is the value of QEMU's -netdev for the other end.
func (s *Server) Netdev(id string) string {
	return fmt.Sprintf("dgram,id=%s,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s", id, s.peer.Name, s.conn.LocalAddr())
}

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	buffer := make([]byte, maxFrame)
	for {
		n, err := s.conn.Read(buffer)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			continue
		}
		if answer := reply(buffer[:n], s.cfg.URL); answer != nil {
			_, _ = s.conn.WriteToUnix(answer, s.peer) // lost, as a datagram may be: the firmware asks again
		}
	}
}

// reply is the frame that answers a frame; nil for all that are no question for HTTP boot.
func reply(frame []byte, url string) []byte {
	question := discover(frame)
	if question == nil || !strings.HasPrefix(question.ClassIdentifier(), httpClient) {
		return nil
	}
	answer, err := dhcpv4.NewReplyFromRequest(question,
		dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(address())),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier(httpClient)),
		dhcpv4.WithOption(dhcpv4.OptBootFileName(url)),
	)
	if err != nil {
		return nil
	}
	answer.SetBroadcast() // the machine has no address yet
	return packet(answer.ToBytes())
}

// discover is the DHCPDISCOVER that an Ethernet frame carries; nil for any other frame.
func discover(frame []byte) *dhcpv4.DHCPv4 {
	if len(frame) < ethernet+20 || binary.BigEndian.Uint16(frame[12:]) != etherTypeIP {
		return nil
	}
	ip := frame[ethernet:]
	header, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if ip[0]>>4 != 4 || header < 20 || total < header+8 || total > len(ip) || ip[9] != udp || binary.BigEndian.Uint16(ip[header+2:]) != serverPort {
		return nil
	}
	m, err := dhcpv4.FromBytes(ip[header+8 : total])
	if err != nil || m.MessageType() != dhcpv4.MessageTypeDiscover {
		return nil
	}
	return m
}

// packet puts a message from the server to everybody into a frame (RFC 894, 791, 768; a UDP checksum of 0 is none).
func packet(message []byte) []byte {
	f := make([]byte, ethernet+20+8, ethernet+20+8+len(message))
	copy(f, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0x00, 0x4b, 0x45, 0xfe})
	binary.BigEndian.PutUint16(f[12:], etherTypeIP)
	ip := f[ethernet:]
	ip[0], ip[8], ip[9] = 0x45, 64, udp
	binary.BigEndian.PutUint16(ip[2:], uint16(20+8+len(message)))
	copy(ip[12:], address().To4())
	copy(ip[16:], net.IPv4bcast.To4())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	binary.BigEndian.PutUint16(ip[20:], serverPort)
	binary.BigEndian.PutUint16(ip[22:], clientPort)
	binary.BigEndian.PutUint16(ip[24:], uint16(8+len(message)))
	return append(f, message...)
}

// address is the server's own in QEMU's user network, where nobody else has it.
func address() net.IP { return net.IPv4(10, 0, 2, 9) }
