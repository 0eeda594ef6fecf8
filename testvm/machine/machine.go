// Package machine makes a running machine of an image and user-data: its
// disks, its seed, its console and the way into its cluster.
//
// The image comes from imagebuild and is never written; a machine's own files
// are in one folder. Command testvm runs one for a person, the scenarios and
// the benchmark many. It knows no more of the inside than what stands on the
// console and what the API says.
package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"keelson/testvm/cidata"
	"keelson/testvm/console"
	"keelson/testvm/lan"
	"keelson/testvm/qemu"
)

// Config is one machine. Dir and Accel must be given.
type Config struct {
	Dir      string   // its files; made, and emptied of a machine that was there
	Image    string   // the image; "": with a medium an empty disk, else no disk, for a machine that starts over the network
	Format   string   // of the image, as QEMU calls it; raw where empty
	Bus      qemu.Bus // where the image is plugged in
	Sector   int      // bytes of the disk's sectors; 512 where 0
	Medium   string   // an ISO beside the disk, which the firmware starts after it
	Insert   qemu.Bus // where that is plugged in
	Prefer   bool     // have the firmware start the medium before the disk
	Boot     string   // vmlinuz, initrd and cmdline, for a direct start
	Accel    string   // of qemu.Probe
	Arch     string   // of the image; amd64 where empty
	Firmware qemu.Firmware
	Secure   bool   // firmware that can do Secure Boot (UEFI)
	Vars     string // its variables to begin with, in place of empty ones (UEFI)
	Memory   int    // MiB; 4096 where 0
	CPUs     int    // 2 where 0
	DiskSize int64  // bytes; 20 GiB where 0

	Seed       cidata.Volume // a token is added as vendor-data where it has none
	SeedFormat cidata.Format // vfat where empty
	Parameters []string      // further kernel parameters, for a direct start

	Disks []qemu.Disk // still more disks, after the seed's

	LAN *lan.Port // where a second network card is plugged in; nil: there is none
	MAC string    // of that card

	Cards   []qemu.Card // still more cards
	SMBIOS  []string    // what the firmware says of the machine, as -smbios takes it
	UserNet string      // further settings of user networking
	NetBoot qemu.NetBoot
	Beside  func(id string) string // what else is on the wire of user networking, as -netdev takes it

	Reboots bool               // a reset starts the guest again instead of ending QEMU
	Follow  func(console.Line) // hears every line of the console
}

// Machine is one, running or not.
type Machine struct {
	config  Config
	token   string
	ports   []qemu.Forward
	console *console.Console
	files   []*os.File // held open: console log, QEMU's errors, the lock
	stderr  *os.File

	proc *qemu.Process
	mark console.Mark // where the present boot begins in the console
	boot int
	read chan error // of the present boot's console

	announced int // see Announce
}

const (
	apiserverPort  = 6443
	supervisorPort = 9345
)

// New makes the machine's disks. It is off.
func New(ctx context.Context, c Config) (*Machine, error) {
	if c.Memory == 0 {
		c.Memory = 4096
	}
	if c.CPUs == 0 {
		c.CPUs = 2
	}
	if c.DiskSize == 0 {
		c.DiskSize = 20 << 30
	}
	if c.SeedFormat == "" {
		c.SeedFormat = cidata.FAT
	}
	if c.Arch == "" {
		c.Arch = "amd64"
	}
	if c.Boot == "" {
		c.Boot = filepath.Join(filepath.Dir(cmp.Or(c.Image, c.Medium)), c.Arch)
	}
	if c.Format == "" {
		c.Format = "raw"
	}
	m := &Machine{config: c}
	if err := m.prepare(ctx); err != nil {
		m.Close()
		return nil, fmt.Errorf("make machine %s: %w", filepath.Base(c.Dir), err)
	}
	return m, nil
}

func (m *Machine) prepare(ctx context.Context) error {
	if err := os.MkdirAll(m.config.Dir, 0o755); err != nil {
		return err
	}
	if err := m.lock(); err != nil {
		return err
	}
	if err := m.pin(ctx); err != nil {
		return err
	}
	if err := m.makeDisk(ctx); err != nil {
		return err
	}
	if err := m.Reseed(m.config.Seed); err != nil {
		return err
	}
	if m.config.Firmware == qemu.UEFI {
		_, vars, err := qemu.FindFirmware(m.config.Arch, m.config.Secure)
		if err != nil {
			return err
		}
		if m.config.Vars != "" {
			vars = m.config.Vars
		}
		if err := qemu.CopyFile(vars, m.path("vars.fd")); err != nil {
			return err
		}
	}
	log, err := m.create("console.log")
	if err != nil {
		return err
	}
	if m.stderr, err = m.create("qemu.log"); err != nil {
		return err
	}
	m.console = console.New(log)
	if m.config.Follow != nil {
		m.console.Follow(m.config.Follow)
	}
	ports, err := qemu.FreePorts(2)
	if err != nil {
		return err
	}
	m.ports = []qemu.Forward{{Host: ports[0], Guest: apiserverPort}, {Host: ports[1], Guest: supervisorPort}}
	return nil
}

// pin keeps the image as it is now under a name of the machine's own: a build
// beside the machine puts another in its place, and a disk over another image
// than yesterday's would be a broken one. The same goes for a direct start.
func (m *Machine) pin(ctx context.Context) error {
	for name, file := range map[string]string{"image": m.config.Image, "medium.iso": m.config.Medium} {
		if file == "" {
			continue
		}
		own := m.path(name)
		if err := os.Remove(own); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.Link(file, own); errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w: build the image first (make image)", err)
		} else if err != nil { // another file system
			if out, err := exec.CommandContext(ctx, "cp", "--sparse=always", file, own).CombinedOutput(); err != nil {
				return fmt.Errorf("copy image: %w: %s", err, out)
			}
		}
	}
	if m.config.Firmware != qemu.Direct {
		return nil
	}
	for _, name := range []string{"vmlinuz", "initrd", "cmdline"} {
		if err := qemu.CopyFile(filepath.Join(m.config.Boot, name), m.path(name)); err != nil {
			return fmt.Errorf("start directly: %w: build the image first (make image)", err)
		}
	}
	return nil
}

// hasDisk tells of a machine that starts over the network.
func (m *Machine) hasDisk() bool { return m.config.Image != "" || m.config.Medium != "" }

// makeDisk makes the disk over the image, or an empty one.
func (m *Machine) makeDisk(ctx context.Context) error {
	switch {
	case !m.hasDisk():
		return nil
	case m.config.Image == "":
		return qemu.CreateDisk(ctx, m.path("disk.qcow2"), m.config.DiskSize)
	}
	return qemu.CreateOverlay(ctx, m.path("image"), m.config.Format, m.path("disk.qcow2"), m.config.DiskSize)
}

// Untouched tells by its error that the machine, which is off, has written to its disk: that this is not what the
// image is.
func (m *Machine) Untouched(ctx context.Context) error {
	if m.running() {
		return errors.New("compare the disk with its image: the machine is running")
	}
	return qemu.Compare(ctx, m.path("image"), m.config.Format, m.path("disk.qcow2"))
}

// lock refuses a second machine in the same folder.
func (m *Machine) lock() error {
	f, err := m.create("lock")
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("%s is in use by another machine that runs: end it, or choose another name", m.config.Dir)
	}
	return nil
}

func (m *Machine) create(name string) (*os.File, error) {
	f, err := os.Create(m.path(name))
	if err != nil {
		return nil, err
	}
	m.files = append(m.files, f)
	return f, nil
}

func (m *Machine) path(name string) string { return filepath.Join(m.config.Dir, name) }

// Reseed writes another seed. A machine that runs sees it when it looks again,
// see Announce.
func (m *Machine) Reseed(seed cidata.Volume) error {
	seed, token, err := seed.WithToken(m.token)
	if err != nil {
		return err
	}
	m.token, m.config.Seed = token, seed
	fresh := m.path("cidata.new")
	defer os.Remove(fresh)
	if err := seed.Write(fresh, m.config.SeedFormat); err != nil {
		return err
	}
	return overwrite(fresh, m.path("cidata.img"))
}

// overwrite copies into the file that is there, which QEMU may have open.
func overwrite(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("write seed: %w", err)
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("write seed: %w", err)
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return fmt.Errorf("write seed: %w", err)
	}
	return f.Close()
}

// Unseed empties the seed's volume. The machine must be off.
func (m *Machine) Unseed() error {
	info, err := os.Stat(m.path("cidata.img"))
	if err != nil {
		return fmt.Errorf("empty the seed: %w", err)
	}
	if err := os.WriteFile(m.path("cidata.img"), make([]byte, info.Size()), 0o600); err != nil {
		return fmt.Errorf("empty the seed: %w", err)
	}
	return nil
}

// Refit changes memory and firmware of a machine that is off. UEFI must have been its firmware from the beginning.
func (m *Machine) Refit(memory int, firmware qemu.Firmware) {
	m.config.Memory, m.config.Firmware = memory, firmware
}

// Start switches the machine on.
func (m *Machine) Start(ctx context.Context) error {
	c := qemu.Config{
		Binary: qemu.Binary(m.config.Arch), Arch: m.config.Arch, Accel: m.config.Accel, CPUs: m.config.CPUs, Memory: m.config.Memory,
		Firmware: m.config.Firmware, NoReboot: !m.config.Reboots,
		Disks: []qemu.Disk{
			{Path: m.path("disk.qcow2"), Format: "qcow2", Serial: "system", Bus: m.config.Bus, Sector: m.config.Sector, ReadOnly: m.config.Bus == qemu.CD},
			{Path: m.path("cidata.img"), Format: "raw", Serial: "cidata"},
		},
		Network: true, Forwards: m.ports, SMBIOS: m.config.SMBIOS, UserNet: m.config.UserNet, NetBoot: m.config.NetBoot, Beside: m.config.Beside,
	}
	if !m.hasDisk() {
		c.Disks = c.Disks[1:]
	}
	c.Disks = append(c.Disks, m.config.Disks...)
	if m.config.Medium != "" {
		medium := qemu.Disk{Path: m.path("medium.iso"), Format: "raw", Bus: m.config.Insert, ReadOnly: true, Serial: "medium"}
		if m.config.Prefer {
			c.Disks = append([]qemu.Disk{medium}, c.Disks...)
		} else {
			c.Disks = append(c.Disks, medium)
		}
	}
	if m.config.LAN != nil {
		c.Cards = []qemu.Card{{Netdev: m.config.LAN.Netdev, MAC: m.config.MAC}}
	}
	c.Cards = append(c.Cards, m.config.Cards...)
	switch m.config.Firmware {
	case qemu.UEFI:
		code, _, err := qemu.FindFirmware(m.config.Arch, m.config.Secure)
		if err != nil {
			return err
		}
		c.Code, c.Vars, c.SMM = code, m.path("vars.fd"), m.config.Secure
	case qemu.Direct:
		cmdline, err := os.ReadFile(m.path("cmdline"))
		if err != nil {
			return fmt.Errorf("start directly: %w", err)
		}
		c.Kernel, c.Initrd = m.path("vmlinuz"), m.path("initrd")
		c.Cmdline = strings.Join(append([]string{strings.TrimSpace(string(cmdline))}, m.config.Parameters...), " ")
	}
	proc, err := qemu.Start(ctx, c, m.stderr)
	if err != nil {
		return err
	}
	m.boot++
	m.proc, m.mark, m.read = proc, m.console.Mark(), make(chan error, 1)
	m.console.Start()
	go func(read chan<- error) { read <- m.console.Read(proc.Serial()) }(m.read)
	return m.keepCommand()
}

// keepCommand leaves the command line beside the console.
func (m *Machine) keepCommand() error {
	line := fmt.Sprintf("# boot %d, %s\n%s\n", m.boot, m.proc.Started.Format(time.RFC3339), quote(m.proc.Command))
	f, err := os.OpenFile(m.path("command.sh"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

func quote(command []string) string {
	var words []string
	for _, w := range command {
		words = append(words, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
	}
	return strings.Join(words, " ")
}

// Started is when QEMU of the present boot was started.
func (m *Machine) Started() time.Time { return m.proc.Started }

// CPU is the processor time that QEMU has used in the present boot.
func (m *Machine) CPU() (time.Duration, error) { return m.proc.CPU() }

// Console of the machine, all boots.
func (m *Machine) Console() *console.Console { return m.console }

// Mark is where the present boot begins in the console.
func (m *Machine) Mark() console.Mark { return m.mark }

// Monitor of the running machine.
func (m *Machine) Monitor() *qemu.QMP { return m.proc.QMP() }

// Variables is the file of the firmware's variables: another machine can begin with a copy of it.
func (m *Machine) Variables() string { return m.path("vars.fd") }
