package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"keelson/testvm/lan"
)

// The address plan: the n-th machine has .n, and what the test itself offers on the LAN is at .254.
const (
	network  = "10.78.0.0/24"
	network6 = "fd00:78::/64"
	gateway  = 254
)

// Families are those of which a machine has an address and a route to the test.
type Families int

// What a machine has; the zero value is IPv4.
const (
	IPv4 Families = iota
	DualStack
	IPv6
)

// Address of the n-th machine.
func Address(n int) netip.Addr {
	base := netip.MustParsePrefix(network).Addr().As4()
	base[3] = byte(n)
	return netip.AddrFrom4(base)
}

// Address6 is the n-th machine's of IPv6, where it has one.
func Address6(n int) netip.Addr {
	base := netip.MustParsePrefix(network6).Addr().As16()
	base[15] = byte(n)
	return netip.AddrFrom16(base)
}

// Gateway is the test's own address on the LAN.
func Gateway() netip.Addr { return Address(gateway) }

// Gateway6 is the test's own of IPv6.
func Gateway6() netip.Addr { return Address6(gateway) }

// addresses are the n-th machine's.
func (f Families) addresses(n int) []netip.Addr {
	switch f {
	case DualStack:
		return []netip.Addr{Address(n), Address6(n)}
	case IPv6:
		return []netip.Addr{Address6(n)}
	default:
		return []netip.Addr{Address(n)}
	}
}

// place puts an address on a link: usable at once, for nobody else on the LAN has it.
func place(link netlink.Link, a netip.Addr) error {
	of, flags := network, 0
	if a.Is6() {
		of, flags = network6, unix.IFA_F_NODAD
	}
	address, err := netlink.ParseAddr(fmt.Sprintf("%s/%d", a, netip.MustParsePrefix(of).Bits()))
	if err != nil {
		return err
	}
	address.Flags = flags
	return netlink.AddrAdd(link, address)
}

// LAN is a switch in a network namespace of its own: the kernel's bridge, one for each group of machines that see
// each other.
type LAN struct {
	ns *os.File

	mu    sync.Mutex
	ports map[string]*port
}

// port is a machine's cable.
type port struct {
	link  string // name of our end; empty while nothing is plugged in
	fault lan.Fault
	group int
}

// NewLAN makes one without ports. It lives until Close, or until the process ends.
func NewLAN() (*LAN, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	l := &LAN{ports: map[string]*port{}}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good, as in function in
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- fmt.Errorf("make network namespace: %w", err)
			return
		}
		var err error
		l.ns, err = os.Open("/proc/thread-self/ns/net")
		made <- err
	}()
	if err := <-made; err != nil {
		return nil, fmt.Errorf("make LAN: %w", err)
	}
	err := in(l.ns, func() error {
		bridge, err := ensureBridge(0)
		if err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return errors.Join(place(bridge, Gateway()), place(bridge, Gateway6()), netlink.LinkSetUp(lo))
	})
	if err != nil {
		l.ns.Close()
		return nil, fmt.Errorf("make LAN: %w", err)
	}
	return l, nil
}

// Close lets go of it.
func (l *LAN) Close() error { return l.ns.Close() }

// ensureBridge returns the bridge of a group, up.
func ensureBridge(group int) (netlink.Link, error) {
	name := "group" + strconv.Itoa(group)
	if link, err := netlink.LinkByName(name); err == nil {
		return link, nil
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("make bridge: %w", err)
	}
	return bridge, netlink.LinkSetUp(bridge)
}

// plug connects a machine's network namespace: its card is eth0, with an address and a route to the test. A cable
// keeps its faults from one boot to the next.
func (l *LAN) plug(name string, n int, families Families, machine *os.File) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.ports[name]
	if p == nil {
		p = &port{}
		l.ports[name] = p
	}
	ours := "m" + strconv.Itoa(n)
	mac, err := net.ParseMAC(lan.MAC(byte(n)))
	if err != nil {
		return err
	}
	err = in(l.ns, func() error {
		pair := netlink.NewVeth(netlink.LinkAttrs{Name: ours})
		pair.PeerName, pair.PeerHardwareAddr, pair.PeerNamespace = "cable", mac, netlink.NsFd(machine.Fd())
		if err := netlink.LinkAdd(pair); err != nil {
			return fmt.Errorf("make cable: %w", err)
		}
		return netlink.LinkSetUp(pair)
	})
	if err != nil {
		return fmt.Errorf("plug %s in: %w", name, err)
	}
	p.link = ours
	if err := l.apply(name); err != nil {
		return err
	}
	if err := in(machine, func() error { return card(families.addresses(n), mac) }); err != nil {
		return fmt.Errorf("plug %s in: %w", name, err)
	}
	return nil
}

// card makes eth0 of the cable's end: a link of its own on top, since a veth is not what a machine takes for a card.
func card(addresses []netip.Addr, mac net.HardwareAddr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	cable, err := netlink.LinkByName("cable")
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.LinkSetUp(cable)); err != nil {
		return err
	}
	eth := &netlink.Macvlan{
		LinkAttrs: netlink.LinkAttrs{Name: "eth0", ParentIndex: cable.Attrs().Index, HardwareAddr: mac},
		Mode:      netlink.MACVLAN_MODE_PASSTHRU,
	}
	if err := netlink.LinkAdd(eth); err != nil {
		return fmt.Errorf("make card: %w", err)
	}
	if err := netlink.LinkSetUp(eth); err != nil {
		return fmt.Errorf("set card up: %w", err)
	}
	for _, a := range addresses {
		to := Gateway()
		if a.Is6() {
			to = Gateway6()
		}
		if err := errors.Join(place(eth, a), netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Index, Gw: to.AsSlice()})); err != nil {
			return fmt.Errorf("set card up: %s: %w", a, err)
		}
	}
	return nil
}

// unplug takes the cable of a machine that is gone.
func (l *LAN) unplug(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.ports[name]
	if p == nil || p.link == "" {
		return nil
	}
	ours := p.link
	p.link = ""
	return in(l.ns, func() error {
		link, err := netlink.LinkByName(ours)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil // it went with the machine's namespace
		}
		if err != nil {
			return fmt.Errorf("unplug %s: %w", name, err)
		}
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("unplug %s: %w", name, err)
		}
		return nil
	})
}

// Set puts a fault on a machine's cable; the zero Fault mends it. Loss and delay need the kernel's sch_netem.
func (l *LAN) Set(name string, f lan.Fault) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.ports[name]
	if p == nil {
		return fmt.Errorf("set fault: no port %s", name)
	}
	p.fault = f
	return l.apply(name)
}

// Split lets machines reach only those of their own group; those that are in none are a group with the test. Without
// groups all reach all again.
func (l *LAN) Split(groups ...[]string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := map[string]int{}
	for i, names := range groups {
		for _, name := range names {
			if l.ports[name] == nil {
				return fmt.Errorf("split: no port %s", name)
			}
			of[name] = i + 1
		}
	}
	var errs []error
	for name, p := range l.ports {
		p.group = of[name]
		errs = append(errs, l.apply(name))
	}
	return errors.Join(errs...)
}

// apply brings a cable's state about. A cable that is cut keeps its carrier, as one behind a switch that fails would.
func (l *LAN) apply(name string) error {
	p := l.ports[name]
	if p.link == "" {
		return nil // when it is plugged in
	}
	err := in(l.ns, func() error {
		link, err := netlink.LinkByName(p.link)
		if err != nil {
			return err
		}
		if p.fault.Cut {
			return netlink.LinkSetNoMaster(link)
		}
		if err := impair(link, p.fault); err != nil {
			return err
		}
		bridge, err := ensureBridge(p.group)
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(link, bridge)
	})
	if err != nil {
		return fmt.Errorf("set cable of %s: %w", name, err)
	}
	return nil
}

// impair makes the kernel lose and delay frames on their way to the machine.
func impair(link netlink.Link, f lan.Fault) error {
	present, err := netlink.QdiscList(link)
	if err != nil {
		return fmt.Errorf("list queues: %w", err)
	}
	for _, q := range present {
		if q.Type() == "netem" {
			if err := netlink.QdiscDel(q); err != nil {
				return fmt.Errorf("remove loss and delay: %w", err)
			}
		}
	}
	if f.Loss == 0 && f.Delay == 0 {
		return nil
	}
	attrs := netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	err = netlink.QdiscAdd(netlink.NewNetem(attrs, netlink.NetemQdiscAttrs{
		Latency: uint32(f.Delay / time.Microsecond), Loss: float32(f.Loss * 100), Limit: 10000,
	}))
	if errors.Is(err, unix.ENOENT) {
		return errors.New("this kernel cannot lose or delay frames: it has no sch_netem")
	}
	return err
}

// Dial connects to an address on the LAN, from the test's.
func (l *LAN) Dial(ctx context.Context, address string) (net.Conn, error) {
	return dial(ctx, l.ns, address)
}

// Listen offers something to the machines, at Gateway.
func (l *LAN) Listen(port int) (net.Listener, error) { return l.listen(Gateway(), port) }

func (l *LAN) listen(at netip.Addr, port int) (net.Listener, error) {
	var listener net.Listener
	err := in(l.ns, func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(at, uint16(port)).String())
		return err
	})
	return listener, err
}

// dial connects inside a network namespace. The address is one of numbers: a name would be looked up elsewhere.
func dial(ctx context.Context, ns *os.File, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	var conn net.Conn
	err := in(ns, func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
		return err
	})
	return conn, err
}
