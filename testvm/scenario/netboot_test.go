package scenario

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"keelson/testvm/bootserver"
	"keelson/testvm/machine"
	"keelson/testvm/qemu"
)

// A machine without any disk starts over the network, to PID 1's last step: by iPXE with both firmwares, and by the firmware
// of UEFI alone, by PXE and by HTTP. The root is in memory, verified as on a disk.
func TestScenarioNetworkBoot(t *testing.T) {
	needVM(t)
	name := "keelson-" + *flagArch
	for _, ext := range []string{".ipxe", ".pxe.efi", ".pxe.initrd", ".pxe.vmlinuz"} {
		if _, err := os.Stat(filepath.Join(the.build, name+ext)); err != nil {
			t.Fatalf("%v: make the formats first (make formats)", err)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(the.build))}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	url := fmt.Sprintf("http://%s:%d/%s", qemu.HostInGuest, listener.Addr().(*net.TCPAddr).Port, name)
	for _, c := range []struct {
		name     string
		firmware qemu.Firmware
		by       qemu.NetBoot
		from     string
		told     string // the URL that a boot server tells
	}{
		{"iPXE by BIOS", qemu.BIOS, qemu.IPXE, "bootfile=" + url + ".ipxe", ""},
		{"iPXE by UEFI", qemu.UEFI, qemu.IPXE, "bootfile=" + url + ".ipxe", ""},
		{"UEFI by TFTP", qemu.UEFI, qemu.OwnPXE, "tftp=" + the.build + ",bootfile=" + name + ".pxe.efi", ""},
		{"UEFI by HTTP", qemu.UEFI, qemu.OwnPXE, "", url + ".pxe.efi"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if *flagArch == "arm64" && (c.firmware == qemu.BIOS || c.by == qemu.IPXE) {
				t.Skip("arm64 machines have no BIOS, and QEMU's ROMs are for x86")
			}
			m := newMachine(t, c.firmware, func(config *machine.Config) {
				config.Image, config.NetBoot, config.UserNet, config.Memory = "", c.by, c.from, 6144
				if c.told != "" {
					config.Beside = tell(t, c.told)
				}
			})
			start(t, m)
			if _, err := m.Booted(within(t, bootLimit)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// tell puts a boot server on a machine's wire.
func tell(t *testing.T, url string) func(id string) string {
	dir, err := os.MkdirTemp("", "boot")
	if err != nil {
		t.Fatal(err)
	}
	server, err := bootserver.New(bootserver.Config{Dir: dir, URL: url})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return server.Netdev
}
