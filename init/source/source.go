package source

import (
	"context"
	"net"
	"time"

	"keelson/init/dmi"
	"keelson/init/metadata"
	"keelson/init/metadata/backdoor"
	"keelson/init/userdata"
)

// Limits keep a hostile or broken source from filling memory. cloud-init's
// platforms allow 16 to 256 KiB; manifests in write_files make more sensible.
const (
	maxDocument = 4 << 20
	maxStored   = 32 << 20
)

// Config says where to look. Empty fields leave a source out.
type Config struct {
	Cmdline string // the kernel command line, /proc/cmdline
	ESP     string // block device of the EFI system partition
	FwCfg   string // folder of QEMU's files, DefaultFwCfg on a machine
	Stored  string // the copy Store wrote

	// Volumes finds the NoCloud volumes; nil means FindVolumes(DefaultBlock).
	Volumes func() ([]Volume, error)
	// Mount makes a volume readable; nil means MountReadOnly.
	Mount func(Volume) (Mounted, error)
	// LoadModule makes a file system known to the kernel, since PID 1 has no
	// modprobe that the kernel could call; nil means it is built in.
	LoadModule func(names ...string) error

	// NextDevice blocks until the kernel tells of a block device, new or with a
	// new medium (a subscription of package uevent to "block").
	NextDevice func(context.Context) error
	// Machine says which cloud this is; the zero value is none.
	Machine dmi.Identity
	// Guestinfo reaches VMware's hypervisor; nil means backdoor.Do.
	Guestinfo func(func(backdoor.Port) error) error
	// Online brings the network up, by the network-config that local sources
	// gave or by DHCP, and returns when it is usable. It is called before every
	// attempt to reach a source over the network; nil means it is up.
	Online func(ctx context.Context, network []userdata.Document) error
	// Client asks over the network; nil means a client without special ways.
	Client *metadata.Client
	// Secure makes a TLS connection to HOST:PORT that trusts the image's
	// certificates, and those that documents found so far give; nil means that
	// https addresses are refused.
	Secure func(ctx context.Context, address string, trust userdata.CACerts) (net.Conn, error)
	// Say tells the console about a source that keeps the machine waiting.
	Say func(line string)

	// Settle is how long to wait for a NoCloud volume to appear where neither a
	// source nor a stored copy gave anything (a first boot with a slow drive).
	Settle time.Duration
}

// Places on a running machine.
const (
	DefaultFwCfg = "/sys/firmware/qemu_fw_cfg/by_name/opt/keelson"
	DefaultBlock = "/sys/class/block"
)

// Volume is a block device with a file system that may hold documents.
type Volume struct {
	Device string // /dev/vdb
	FSType string // vfat or iso9660
	Label  string
}

// Mounted is a volume that can be read.
type Mounted struct {
	Dir   string
	Close func() error // unmounts
}
