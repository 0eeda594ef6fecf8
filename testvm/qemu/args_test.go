package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestArgs(t *testing.T) {
	base := Config{Binary: "qemu-system-x86_64", Accel: TCG, CPUs: 2, Memory: 4096}
	with := func(change func(*Config)) Config {
		c := base
		change(&c)
		return c
	}
	for _, c := range []struct {
		name string
		in   Config
	}{
		{"uefi", with(func(c *Config) {
			c.Firmware, c.Code, c.Vars = UEFI, "/usr/share/OVMF/OVMF_CODE_4M.fd", "vm/vars.fd"
			c.Disks = []Disk{{Path: "vm/disk.qcow2", Format: "qcow2", Serial: "system"}, {Path: "vm/cidata.img", Format: "raw", ReadOnly: true}}
			c.Network, c.Forwards = true, []Forward{{40001, 6443}, {40002, 9345}}
		})},
		{"uefi-secure", with(func(c *Config) {
			c.Firmware, c.Code, c.Vars, c.SMM = UEFI, "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "vm/vars.fd", true
		})},
		{"bios", with(func(c *Config) {
			c.Firmware, c.NoReboot = BIOS, true
			c.Disks = []Disk{{Path: "odd, name.raw", Format: "raw"}}
		})},
		{"media", with(func(c *Config) {
			c.Firmware = BIOS
			c.Disks = []Disk{{Bus: CD, Path: "live.iso", Format: "raw", ReadOnly: true}, {Bus: USB, Path: "stick.raw", Format: "raw"}}
		})},
		{"buses", with(func(c *Config) {
			c.Firmware = BIOS
			for _, bus := range []Bus{SATA, NVMe, SCSI} {
				c.Disks = append(c.Disks, Disk{Bus: bus, Path: string(bus) + ".qcow2", Format: "qcow2", Serial: string(bus)})
			}
			c.Disks = append(c.Disks, Disk{Path: "large.raw", Format: "raw", Sector: 4096})
		})},
		{"media-arm64", with(func(c *Config) {
			c.Binary, c.Arch, c.Firmware, c.Code, c.Vars = Binary("arm64"), "arm64", UEFI, "/usr/share/AAVMF/AAVMF_CODE.fd", "vm/vars.fd"
			c.Disks = []Disk{{Bus: CD, Path: "live.iso", Format: "raw", ReadOnly: true}, {Bus: USB, Path: "stick.raw", Format: "raw"}}
		})},
		{"ipxe", with(func(c *Config) {
			c.Firmware, c.Network, c.NetBoot, c.UserNet = BIOS, true, IPXE, "bootfile=http://10.0.2.2:40003/keelson-amd64.ipxe"
			c.Disks = []Disk{{Path: "vm/cidata.img", Format: "raw"}}
		})},
		{"own-pxe", with(func(c *Config) {
			c.Firmware, c.Code, c.Vars = UEFI, "/usr/share/OVMF/OVMF_CODE_4M.fd", "vm/vars.fd"
			c.Network, c.NetBoot, c.UserNet = true, OwnPXE, "tftp=build,bootfile=keelson-amd64.pxe.efi"
		})},
		{"http-boot", with(func(c *Config) {
			c.Firmware, c.Code, c.Vars = UEFI, "/usr/share/OVMF/OVMF_CODE_4M.fd", "vm/vars.fd"
			c.Network, c.NetBoot = true, OwnPXE
			c.Beside = func(id string) string { return "dgram,id=" + id + ",local.type=unix" }
		})},
		{"direct", with(func(c *Config) {
			c.Firmware, c.Kernel, c.Initrd, c.Cmdline = Direct, "amd64/vmlinuz", "amd64/initrd", "console=ttyS0 quiet"
			c.Disks = []Disk{{Path: "disk.qcow2", Format: "qcow2"}}
			c.FWCfg = map[string]string{"opt/keelson/user-data": "user-data", "opt/keelson/meta-data": "meta-data"}
		})},
		{"two-cards", with(func(c *Config) {
			c.Firmware, c.Network = BIOS, true
			c.UserNet, c.SMBIOS = "net=169.254.0.0/16", []string{"type=1,manufacturer=Amazon EC2"}
			c.Cards = []Card{{Netdev: func(id string) string { return "dgram,id=" + id + ",local.type=unix" }, MAC: "52:54:00:4b:45:01"}}
		})},
		{"arm64", with(func(c *Config) {
			c.Binary, c.Arch, c.Firmware, c.Code, c.Vars = Binary("arm64"), "arm64", UEFI, "/usr/share/AAVMF/AAVMF_CODE.fd", "vm/vars.fd"
			c.Disks = []Disk{{Path: "vm/disk.qcow2", Format: "qcow2", Serial: "system"}}
		})},
		{"kvm-least", Config{Accel: KVM, Firmware: BIOS}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args, err := c.in.Args()
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(args, "\n") + "\n"
			golden := filepath.Join("testdata", c.name+".args")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("arguments: got\n%swant\n%s", got, want)
			}
		})
	}
}

func TestArgsRefuse(t *testing.T) {
	for _, c := range []struct {
		name, want string
		in         Config
	}{
		{"BIOS on arm64", "no BIOS", Config{Accel: TCG, Arch: "arm64", Firmware: BIOS}},
		{"no accelerator", "no accelerator", Config{Firmware: BIOS}},
		{"unknown firmware", "want uefi, bios or direct", Config{Accel: TCG, Firmware: "coreboot"}},
		{"uefi without firmware", "UEFI needs", Config{Accel: TCG, Firmware: UEFI}},
		{"direct without kernel", "needs a kernel", Config{Accel: TCG, Firmware: Direct}},
		{"unknown disk format", "want raw or qcow2", Config{Accel: TCG, Firmware: BIOS, Disks: []Disk{{Path: "x", Format: "vdi"}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := c.in.Args(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error: got %v, want one with %q", err, c.want)
			}
		})
	}
}

// Two machines of one test process must not be given the same port.
func TestFreePortsDiffer(t *testing.T) {
	ports, err := FreePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range ports {
		if p == 0 || seen[p] {
			t.Errorf("ports: got %v, want twenty different ones", ports)
		}
		seen[p] = true
	}
}
