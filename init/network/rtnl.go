package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Flags of a router advertisement as the kernel keeps them for a link
// (include/uapi/linux/if_link.h, IF_RA_*; include/net/if_inet6.h).
const (
	raOther   = 0x80 // IF_RA_OTHERCONF
	raManaged = 0x40 // IF_RA_MANAGED
)

// message is what one rtnetlink message means here. Addresses and routes are
// read anew by the loop; their messages only say for which link.
type message struct {
	index   int
	link    bool // a link is new or has changed
	gone    bool // a link is no more
	lost    bool // messages were dropped
	raFlags *uint32
	rdnss   []netip.Addr
}

// subscribe passes messages on until ctx ends; the channel is closed then.
func (r *runner) subscribe(ctx context.Context) (<-chan message, error) {
	sock, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_IFINFO, unix.RTNLGRP_ND_USEROPT)
	if err != nil {
		return nil, fmt.Errorf("subscribe to rtnetlink: %w", err)
	}
	out := make(chan message)
	stop := context.AfterFunc(ctx, sock.Close)
	r.workers.Go(func() {
		defer close(out)
		defer func() {
			if stop() {
				sock.Close()
			}
		}()
		for {
			batch, _, err := sock.Receive()
			found := []message{{lost: true}}
			if err == nil {
				found = found[:0]
				for _, m := range batch {
					if parsed, ok := parse(m); ok {
						found = append(found, parsed)
					}
				}
			} else if !errors.Is(err, unix.ENOBUFS) {
				return
			}
			for _, m := range found {
				select {
				case out <- m:
				case <-ctx.Done():
					return
				}
			}
		}
	})
	return out, nil
}

// parse reads one message (rtnetlink(7)).
func parse(m syscall.NetlinkMessage) (message, bool) {
	b := m.Data
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(b) < unix.SizeofIfInfomsg {
			return message{}, false
		}
		out := message{index: int(int32(binary.NativeEndian.Uint32(b[4:])))}
		switch family := b[0]; {
		case family == unix.AF_INET6 && m.Header.Type == unix.RTM_NEWLINK:
			out.raFlags = inet6Flags(b[unix.SizeofIfInfomsg:])
		case family != unix.AF_UNSPEC: // a bridge port's own message
			return message{}, false
		case m.Header.Type == unix.RTM_DELLINK:
			out.gone = true
		default:
			out.link = true
		}
		return out, true
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if len(b) < unix.SizeofIfAddrmsg {
			return message{}, false
		}
		return message{index: int(binary.NativeEndian.Uint32(b[4:]))}, true
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return message{}, true
	case unix.RTM_NEWNDUSEROPT:
		return parseOption(b)
	}
	return message{}, false
}

// inet6Flags finds IFLA_PROTINFO > IFLA_INET6_FLAGS.
func inet6Flags(b []byte) *uint32 {
	info, ok := attribute(b, unix.IFLA_PROTINFO)
	if !ok {
		return nil
	}
	flags, ok := attribute(info, unix.IFLA_INET6_FLAGS)
	if !ok || len(flags) < 4 {
		return nil
	}
	v := binary.NativeEndian.Uint32(flags)
	return &v
}

// attribute walks struct rtattr: length, type, value, padding to four bytes.
func attribute(b []byte, kind uint16) ([]byte, bool) {
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return nil, false
		}
		if binary.NativeEndian.Uint16(b[2:])&nlaTypeMask == kind {
			return b[unix.SizeofRtAttr:size], true
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return nil, false
}

// nlaTypeMask takes NLA_F_NESTED and NLA_F_NET_BYTEORDER off a type.
const nlaTypeMask = 0x3fff

// parseOption reads struct nduseroptmsg (include/uapi/linux/rtnetlink.h) with
// the RDNSS option of a router advertisement (RFC 8106 5.1).
func parseOption(b []byte) (message, bool) {
	const header = 16
	if len(b) < header || b[0] != unix.AF_INET6 {
		return message{}, false
	}
	out := message{index: int(int32(binary.NativeEndian.Uint32(b[4:])))}
	opts := b[header:]
	if size := int(binary.NativeEndian.Uint16(b[2:])); size <= len(opts) {
		opts = opts[:size]
	}
	for len(opts) >= 8 {
		size := int(opts[1]) * 8
		if size == 0 || size > len(opts) {
			return message{}, false
		}
		if opts[0] == 25 && binary.BigEndian.Uint32(opts[4:]) > 0 { // with a lifetime
			for at := 8; at+16 <= size; at += 16 {
				out.rdnss = append(out.rdnss, netip.AddrFrom16([16]byte(opts[at:at+16])))
			}
		}
		opts = opts[size:]
	}
	return out, len(out.rdnss) > 0
}
