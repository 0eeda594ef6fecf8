package qemu

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Firmware says how the guest's first instruction is found.
type Firmware string

// The ways to start a guest.
const (
	UEFI   Firmware = "uefi"   // OVMF, then the disk
	BIOS   Firmware = "bios"   // SeaBIOS, then the disk
	Direct Firmware = "direct" // QEMU loads the kernel itself
)

// ParseFirmware reads the value of a flag.
func ParseFirmware(s string) (Firmware, error) {
	switch f := Firmware(s); f {
	case UEFI, BIOS, Direct:
		return f, nil
	}
	return "", fmt.Errorf("firmware %q: want uefi, bios or direct", s)
}

// Bus is what a disk is plugged into.
type Bus string

// The buses.
const (
	Virtio Bus = ""     // virtio-blk
	CD     Bus = "cd"   // a CD drive at AHCI; on arm64, where QEMU has none, at xHCI, as service processors plug it in
	USB    Bus = "usb"  // a stick at xHCI
	SATA   Bus = "sata" // a disk at AHCI
	NVMe   Bus = "nvme"
	SCSI   Bus = "scsi" // a disk at virtio-scsi
)

// Disk is one disk, in the order in which the guest sees them.
type Disk struct {
	Bus      Bus
	Path     string
	Format   string // raw or qcow2
	ReadOnly bool
	Serial   string // what the guest reads in /sys/block/*/serial
	Sector   int    // bytes; 512 where 0
}

// Forward takes a TCP port of the host's loopback into the guest.
type Forward struct{ Host, Guest int }

// NetBoot says what the machine is started by over the network, before any disk; UserNet says where from.
type NetBoot string

// What starts over the network.
const (
	NoNetBoot NetBoot = ""
	IPXE      NetBoot = "ipxe"     // the card's ROM, which is iPXE (Debian: ipxe-qemu)
	OwnPXE    NetBoot = "firmware" // what the firmware has for itself
)

// Card is a network card beside the one of user networking.
type Card struct {
	Netdev func(id string) string // value of -netdev
	MAC    string
}

// Config is one machine. Binary and Accel must be given, everything else has
// a zero value that means "none".
type Config struct {
	Binary string // of QEMU, see Binary
	Arch   string // amd64 where empty, or arm64
	Accel  string // as -accel takes it, see Probe
	CPUs   int    // 1 where 0
	Memory int    // MiB, 512 where 0

	Firmware Firmware
	Code     string // OVMF's code, never written (UEFI)
	Vars     string // OVMF's variables, this machine's own copy (UEFI)
	SMM      bool   // the code is one that keeps its variables by SMM, as Secure Boot wants it (UEFI)
	Kernel   string // Direct
	Initrd   string // Direct
	Cmdline  string // Direct

	Disks    []Disk
	Network  bool // user networking: guest 10.0.2.15, host 10.0.2.2, DNS 10.0.2.3
	Forwards []Forward
	UserNet  string // further settings of user networking, "net=192.0.2.0/24"
	NetBoot  NetBoot
	// Beside is the value of -netdev for what else is on the wire of user networking; nil where nothing is.
	Beside   func(id string) string
	Cards    []Card
	SMBIOS   []string          // values of -smbios, "type=1,manufacturer=Hetzner"
	FWCfg    map[string]string // name to file
	NoReboot bool              // a reset of the guest ends QEMU
}

// Binary is QEMU's program for machines of an architecture.
func Binary(arch string) string {
	if arch == "arm64" {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

// HostInGuest is the address under which the guest reaches the loopback of
// the host (QEMU's user networking, net/slirp.c).
const HostInGuest = "10.0.2.2"

// File descriptors that Start hands over.
const (
	serialFD = 3
	qmpFD    = 4
)

// Args renders the command line without the program's name.
//
// The serial port and the QMP monitor are sockets that are open already, so
// that neither a path has a length limit nor a connection has to be waited for.
func (c Config) Args() ([]string, error) {
	if c.Accel == "" {
		return nil, errors.New("qemu arguments: no accelerator chosen")
	}
	a := []string{
		"-nodefaults", "-no-user-config", "-display", "none",
		"-machine", c.machine(), "-accel", c.Accel, "-cpu", c.cpuModel(),
		"-smp", strconv.Itoa(max(c.CPUs, 1)), "-m", strconv.Itoa(orDefault(c.Memory, 512)),
		"-chardev", fmt.Sprintf("socket,id=serial,fd=%d", serialFD), "-serial", "chardev:serial",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", qmpFD), "-mon", "chardev=qmp,mode=control",
		"-device", "virtio-rng-pci",
	}
	if c.NoReboot {
		a = append(a, "-no-reboot")
	}
	fw, err := c.firmwareArgs()
	if err != nil {
		return nil, err
	}
	a = append(a, fw...)
	first := 0 // place of the first disk among what is started from
	if c.NetBoot != NoNetBoot {
		first = 1
	}
	for i, d := range c.Disks {
		if d.Format != "raw" && d.Format != "qcow2" {
			return nil, fmt.Errorf("qemu arguments: disk %s: format %q: want raw or qcow2", d.Path, d.Format)
		}
		drive := fmt.Sprintf("if=none,id=disk%d,format=%s,file=%s", i, d.Format, escape(d.Path))
		if d.ReadOnly {
			drive += ",readonly=on"
		} else {
			drive += ",discard=unmap"
		}
		controller, device, err := c.attach(d.Bus, i)
		if err != nil {
			return nil, err
		}
		if d.Bus == CD {
			drive += ",media=cdrom"
		}
		if controller != "" {
			a = append(a, "-device", controller)
		}
		if c.Firmware != Direct { // the kernel of a direct start has the first place
			device += fmt.Sprintf(",bootindex=%d", i+first)
		}
		if d.Sector != 0 {
			device += fmt.Sprintf(",logical_block_size=%d,physical_block_size=%d", d.Sector, d.Sector)
		}
		if d.Serial != "" {
			device += ",serial=" + escape(d.Serial)
		}
		a = append(a, "-drive", drive, "-device", device)
	}
	if c.Network {
		netdev := "user,id=net0"
		if c.UserNet != "" {
			netdev += "," + c.UserNet
		}
		for _, f := range c.Forwards {
			netdev += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", f.Host, f.Guest)
		}
		card := "virtio-net-pci,netdev=net0"
		if c.NetBoot != IPXE {
			card += ",romfile=" // else the firmware would load a PXE ROM and try it
		}
		if c.NetBoot != NoNetBoot {
			card += ",bootindex=0"
		}
		a = append(a, "-netdev", netdev)
		if c.Beside != nil { // a hub with three ports: what QEMU offers to connect two networks and a card
			a = append(a, "-netdev", c.Beside("beside"))
			for i, plugged := range []string{",netdev=net0", ",netdev=beside", ""} {
				a = append(a, "-netdev", fmt.Sprintf("hubport,id=hub%d,hubid=0%s", i, plugged))
			}
			card = strings.Replace(card, "netdev=net0", "netdev=hub2", 1)
		}
		a = append(a, "-device", card)
	}
	for i, card := range c.Cards {
		id := fmt.Sprintf("card%d", i)
		a = append(a, "-netdev", card.Netdev(id), "-device", fmt.Sprintf("virtio-net-pci,netdev=%s,mac=%s,romfile=", id, card.MAC))
	}
	for _, table := range c.SMBIOS {
		a = append(a, "-smbios", table)
	}
	for _, name := range sortedKeys(c.FWCfg) {
		a = append(a, "-fw_cfg", "name="+escape(name)+",file="+escape(c.FWCfg[name]))
	}
	return a, nil
}

// attach says which controller disk i needs, "" where the machine has it, and what the disk is there.
func (c Config) attach(bus Bus, i int) (controller, device string, err error) {
	stick := fmt.Sprintf("usb-storage,bus=usb%d.0,drive=disk%d", i, i)
	switch {
	case bus == Virtio:
		return "", fmt.Sprintf("virtio-blk-pci,drive=disk%d", i), nil
	case bus == USB, bus == CD && c.Arch == "arm64":
		return fmt.Sprintf("qemu-xhci,id=usb%d", i), stick, nil
	case bus == CD:
		return "", fmt.Sprintf("ide-cd,bus=ide.%d,drive=disk%d", i, i), nil
	case bus == SATA:
		return fmt.Sprintf("ich9-ahci,id=ahci%d", i), fmt.Sprintf("ide-hd,bus=ahci%d.0,drive=disk%d", i, i), nil
	case bus == NVMe:
		return "", fmt.Sprintf("nvme,drive=disk%d", i), nil
	case bus == SCSI:
		return fmt.Sprintf("virtio-scsi-pci,id=scsi%d", i), fmt.Sprintf("scsi-hd,bus=scsi%d.0,drive=disk%d", i, i), nil
	}
	return "", "", fmt.Errorf("qemu arguments: disk at bus %q: there is none such", bus)
}

func (c Config) machine() string {
	if c.Arch == "arm64" {
		return "virt,gic-version=3"
	}
	if c.SMM {
		return "q35,smm=on"
	}
	return "q35"
}

func (c Config) firmwareArgs() ([]string, error) {
	switch c.Firmware {
	case UEFI:
		if c.Code == "" || c.Vars == "" {
			return nil, errors.New("qemu arguments: UEFI needs the firmware's code and a copy of its variables")
		}
		a := []string{
			"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + escape(c.Code),
			"-drive", "if=pflash,format=raw,unit=1,file=" + escape(c.Vars),
		}
		if c.SMM {
			a = append(a, "-global", "driver=cfi.pflash01,property=secure,value=on")
		}
		return a, nil
	case BIOS:
		if c.Arch == "arm64" {
			return nil, errors.New("qemu arguments: arm64 machines have no BIOS: want uefi")
		}
		return nil, nil
	case Direct:
		if c.Kernel == "" {
			return nil, errors.New("qemu arguments: a direct start needs a kernel")
		}
		a := []string{"-kernel", c.Kernel, "-append", c.Cmdline}
		if c.Initrd != "" {
			a = append(a, "-initrd", c.Initrd)
		}
		return a, nil
	}
	_, err := ParseFirmware(string(c.Firmware))
	return nil, err
}

// cpuModel: KVM's is the host's CPU. Emulation gets everything it has but AVX,
// which it executes an instruction at a time: a guest that believes in AVX2
// takes it for hashing and copying, at a quarter of the speed of SSE.
// On arm64 it gets a server's, since "max" signs every return address, which
// emulation does by hand.
func (c Config) cpuModel() string {
	if strings.HasPrefix(c.Accel, "kvm") {
		return "host"
	}
	if c.Arch == "arm64" {
		return "neoverse-n1"
	}
	return "max,-avx,-avx2"
}

// escape doubles the comma, the only character that QEMU's option lists read
// as their own (util/qemu-option.c, get_opt_value).
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}
