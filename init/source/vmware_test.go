package source

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/init/dmi"
	"keelson/init/metadata/backdoor/backdoortest"
	"keelson/init/metadata/metadatatest"
	"keelson/init/userdata"
)

// onVMware is a machine of VMware with values of guestinfo.
func onVMware(t *testing.T, host *backdoortest.Host, files map[string]string) Config {
	t.Helper()
	cfg, _ := away(t, "VMware, Inc.", files)
	host.T, cfg.Guestinfo = t, host.Do
	return cfg
}

func TestGuestinfo(t *testing.T) {
	host := &backdoortest.Host{Values: map[string]string{"guestinfo.userdata": "guest", "guestinfo.metadata": "instance-id: i-1"}}
	cfg := onVMware(t, host, map[string]string{"/dev/vda2/keelson/user-data": "esp", "/dev/vdb/user-data": "volume"})
	docs, err := Collect(t.Context(), cfg)
	want := "ESP: user-data=esp | VMware guestinfo: userdata=guest | cidata volume /dev/vdb: user-data=volume"
	if got := sources(docs.User); err != nil || got != want {
		t.Errorf("got %s %v\nwant %s", got, err, want)
	}
	if !Polled(cfg) {
		t.Error("want guestinfo looked at again: a correction makes no event")
	}
}

// A machine elsewhere never reads the port.
func TestGuestinfoElsewhere(t *testing.T) {
	host := &backdoortest.Host{Values: map[string]string{"guestinfo.userdata": "guest"}}
	cfg := onVMware(t, host, map[string]string{"/dev/vdb/user-data": "volume"})
	cfg.ESP, cfg.Machine = "", dmi.Identity{SystemVendor: "QEMU"}
	if _, err := Collect(t.Context(), cfg); err != nil || len(host.Asked) != 0 {
		t.Errorf("got %v, asked %q", err, host.Asked)
	}
}

func TestGuestinfoSilent(t *testing.T) {
	refuses := func() *backdoortest.Host { return &backdoortest.Host{Refuses: true} }
	cfg := onVMware(t, refuses(), nil)
	cfg.ESP = ""
	if docs, err := Collect(t.Context(), cfg); !errors.Is(err, ErrUnanswered) || !docs.Empty() {
		t.Errorf("alone: got %v %v, want the machine to wait", docs, err)
	}
	cfg.Stored = filepath.Join(t.TempDir(), "user-data")
	if err := Store(cfg.Stored, userdata.Documents{User: []userdata.Document{{Source: "old", Data: []byte("old")}}}); err != nil {
		t.Fatal(err)
	}
	docs, err := Collect(t.Context(), cfg)
	if errors.Is(err, ErrUnanswered) || err == nil || !strings.Contains(err.Error(), "the user-data of the last boot is used") || sources(docs.User) != "old=old" {
		t.Errorf("with a stored copy: got %v %v", docs, err)
	}
	cfg = onVMware(t, refuses(), map[string]string{"/dev/vdb/user-data": "volume"})
	cfg.ESP = ""
	docs, err = Collect(t.Context(), cfg)
	if errors.Is(err, ErrUnanswered) || err == nil || sources(docs.User) != "cidata volume /dev/vdb: user-data=volume" {
		t.Errorf("with a volume: got %v %v, want a line and the volume", docs, err)
	}
}

// An address that somebody named is where the user-data is, so that nothing is
// missing without guestinfo.
func TestGuestinfoSilentWithAddress(t *testing.T) {
	folder := t.TempDir()
	write(t, folder+"/seed/user-data", "named")
	cfg := onVMware(t, &backdoortest.Host{Refuses: true}, nil)
	cfg.ESP, cfg.Cmdline = "", "ds=nocloud;s=http://192.0.2.1/seed"
	cfg.Client = (&metadatatest.Server{Folder: folder}).Start(t, "192.0.2.1:80")
	docs, err := Collect(t.Context(), cfg)
	if errors.Is(err, ErrUnanswered) || err == nil || sources(docs.User) != "NoCloud at http://192.0.2.1/seed/: user-data=named" {
		t.Errorf("got %s %v", sources(docs.User), err)
	}
}

func TestVMwareCD(t *testing.T) {
	root := t.TempDir()
	f := &folders{root: root}
	ovf, err := os.ReadFile("../metadata/vmware/testdata/ovf-env.xml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, root+"/dev/sr0/ovf-env.xml", string(ovf))
	write(t, root+"/dev/sr1/README", "other")
	docs, err := Collect(t.Context(), Config{
		Mount: f.mount, Machine: dmi.Identity{ProductName: "VMware7,1"}, Guestinfo: (&backdoortest.Host{T: t}).Do,
		Volumes: func() ([]Volume, error) {
			return []Volume{{"/dev/sr0", "iso9660", "OVF ENV"}, {"/dev/sr1", "iso9660", "KEELSON-LIVE"}}, nil
		},
	})
	if got := sources(docs.User); err != nil || got != "VMware CD /dev/sr0: ovf-env.xml: user-data=#cloud-config\nhostname: from-ovf\n" {
		t.Errorf("got %s %v", got, err)
	}
}
