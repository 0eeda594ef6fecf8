// Package network brings the links of the machine up and keeps them so.
//
// The plan comes from netconfig.Load; an empty plan is DHCPv4 and IPv6
// autoconfiguration on every ethernet. Run does all the work and blocks: it
// follows the kernel's rtnetlink messages (a link appears, carrier comes and
// goes, a router advertisement set an address), runs a DHCPv4 client on each
// link that wants one and a DHCPv6 client where the router asks for it, renews
// leases and writes resolv.conf. Wait returns as soon as one global address and
// a default route are usable, or with ErrNotReady when its bound is over;
// Run goes on either way. IPv6 is never waited for once IPv4 is there.
//
//	net, err := network.New(network.Config{Plan: plan, Hostname: name, Logger: log})
//	go supervise(net.Run)             // until shutdown
//	err = net.Wait(ctx, 10*time.Second) // ErrNotReady: say so and go on
//	st := net.Status()                // addresses, DNS and NTP servers, names
//
// The package never opens a listening port but the DHCP clients' own.
package network
