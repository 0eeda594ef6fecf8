package install

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"keelson/init/userdata"
)

// kernel shows disks as Linux 6.12 does.
func kernel() map[string]map[string]string {
	const bs = "queue/logical_block_size"
	return map[string]map[string]string{
		"vda":     {"@": "pci0000:00/0000:00:03.0/virtio1", "size": "41943040", bs: "512", "serial": "system", "queue/rotational": "1"},
		"sda":     {"@": "pci0/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0", "size": "937703088", bs: "512", "device/model": "INTEL SSDSC2KB48", "device/vendor": "ATA     ", "device/vpd_pg80": "\x00\x80\x00\x14  PHYF0001480AB", "device/wwid": "naa.55cd2e4150000001", "queue/rotational": "0"},
		"sdb":     {"@": "pci0/0000:00:14.0/usb1/1-1/1-1:1.0/host6/target6:0:0/6:0:0:0", "size": "61341696", bs: "512", "device/model": "Ultra", "device/vpd_pg80": "\x00\x80\x00\x04same", "queue/rotational": "1"},
		"sdc":     {"@": "pci0/0000:02:00.0/host1/port-1:0/end_device-1:0/target1:0:0/1:0:0:0", "size": "7814037168", bs: "512", "device/model": "ST4000NM/0023", "device/vpd_pg80": "\x00\x80\x00\x08Z1Z00001", "device/wwid": "naa.5000c50000000001", "queue/rotational": "1"},
		"sdd":     {"@": "pci0/virtio2/host2/target2:0:0/2:0:0:0", "size": "41943040", bs: "520", "device/model": "QEMU HARDDISK"},
		"sde":     {"@": "pci0/virtio2/host2/target2:0:0/2:0:0:1", "size": "41943040", bs: "512", "ro": "1", "device/model": "QEMU HARDDISK"},
		"nvme0n1": {"@": "pci0/0000:03:00.0/nvme/nvme0", "size": "1953525168", bs: "512", "device/model": "Samsung SSD 980 PRO", "device/serial": "S5GX0001", "wwid": "eui.0025385b11111111", "nsid": "1", "queue/rotational": "0"},
		"mmcblk0": {"@": "platform/mmc0/mmc0:0001", "size": "15269888", bs: "512", "device/name": "8GTF4R", "device/serial": "0x1234abcd"},

		"mmcblk0boot0": {"@": "platform/mmc0/mmc0:0001", "size": "8192"},
		"sda1":         {"@": "pci0/0000:00:1f.2/ata1", "size": "2048", "partition": "1"},
		"sr0":          {"@": "pci0/0000:00:1f.2/ata2", "size": "841728"},
		"loop0":        {"@": "virtual", "size": "100"},
		"sdf":          {"@": "pci0/0000:00:14.0/usb1/1-2", "size": "0"}, // a reader without a card
	}
}

func scanned(t testing.TB) []Disk {
	t.Helper()
	disks, err := Scan(sysfs(t, kernel()))
	if err != nil {
		t.Fatal(err)
	}
	return disks
}

func TestScan(t *testing.T) {
	got := scanned(t)
	want := []Disk{
		{Name: "mmcblk0", Size: 15269888 * 512, Sector: 512, Model: "8GTF4R", Serial: "0x1234abcd", Transport: "mmc"},
		{Name: "nvme0n1", Size: 1953525168 * 512, Sector: 512, Model: "Samsung SSD 980 PRO", Serial: "S5GX0001", WWN: "0025385b11111111", Namespace: "1", Transport: "nvme"},
		{Name: "sda", Size: 937703088 * 512, Sector: 512, Model: "INTEL SSDSC2KB48", Serial: "PHYF0001480AB", WWN: "55cd2e4150000001", Transport: "ata"},
		{Name: "sdb", Size: 61341696 * 512, Sector: 512, Model: "Ultra", Serial: "same", Transport: "usb", Rotational: true},
		{Name: "sdc", Size: 7814037168 * 512, Sector: 512, Model: "ST4000NM/0023", Serial: "Z1Z00001", WWN: "5000c50000000001", Transport: "sas", Rotational: true},
		{Name: "sdd", Size: 41943040 * 512, Sector: 520, Model: "QEMU HARDDISK", Transport: "scsi"},
		{Name: "sde", Size: 41943040 * 512, Sector: 512, Model: "QEMU HARDDISK", Transport: "scsi", ReadOnly: true},
		{Name: "vda", Size: 41943040 * 512, Sector: 512, Serial: "system", Transport: "virtio", Rotational: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

// A stick has a serial number of its own, besides what it says as a SCSI disk.
func TestUSBSerial(t *testing.T) {
	all := kernel()
	all["sdb"]["../../../../../../idVendor"] = "0781"
	all["sdb"]["../../../../../../serial"] = "4C5300"
	disks, err := Scan(sysfs(t, map[string]map[string]string{"sdb": all["sdb"]}))
	if err != nil || len(disks) != 1 || disks[0].Serial != "4C5300" {
		t.Errorf("got %+v, %v", disks, err)
	}
}

func TestChoose(t *testing.T) {
	const need = 3 << 30
	yes, no := true, false
	for name, c := range map[string]struct {
		want userdata.DiskMatch
		disk string // or
		text string // a part of the error
	}{
		"smallest":              {userdata.DiskMatch{}, "mmcblk0", ""},
		"path":                  {userdata.DiskMatch{Path: "/dev/sdc"}, "sdc", ""},
		"no such path":          {userdata.DiskMatch{Path: "/dev/sdz"}, "", "/dev/vda (21.5 GB, virtio, serial system) is not /dev/sdz"},
		"by id of virtio":       {userdata.DiskMatch{ByID: "virtio-system"}, "vda", ""},
		"by id of ATA":          {userdata.DiskMatch{ByID: "ata-INTEL_SSDSC2KB480_PHYF0001480AB"}, "sda", ""},
		"by wwn":                {userdata.DiskMatch{ByID: "wwn-0x5000c50000000001"}, "sdc", ""},
		"by id of SCSI":         {userdata.DiskMatch{ByID: "scsi-35000c50000000001"}, "sdc", ""},
		"by id of NVMe":         {userdata.DiskMatch{ByID: "nvme-eui.0025385b11111111"}, "nvme0n1", ""},
		"by id, namespace":      {userdata.DiskMatch{ByID: "nvme-Samsung_SSD_980_PRO_S5GX0001_1"}, "nvme0n1", ""},
		"by id, controller":     {userdata.DiskMatch{ByID: "nvme-Samsung_SSD_980_PRO_S5GX0001"}, "nvme0n1", ""},
		"by id, its second one": {userdata.DiskMatch{ByID: "nvme-Samsung_SSD_980_PRO_S5GX0001_2"}, "", "is not nvme-Samsung_SSD_980_PRO_S5GX0001_2"},
		"by id of a stick":      {userdata.DiskMatch{ByID: "usb-SanDisk_Ultra_same-0:0"}, "sdb", ""},
		"by the end of a word":  {userdata.DiskMatch{ByID: "virtio-other_subsystem"}, "", "is not virtio-other_subsystem"},
		"serial":                {userdata.DiskMatch{Serial: "S5GX0001"}, "nvme0n1", ""},
		"part of a serial":      {userdata.DiskMatch{Serial: "S5GX"}, "", "has serial S5GX0001, not S5GX"},
		"wwn":                   {userdata.DiskMatch{WWN: "0x55CD2E4150000001"}, "sda", ""},
		"model":                 {userdata.DiskMatch{Model: "samsung*"}, "nvme0n1", ""},
		"model with a slash":    {userdata.DiskMatch{Model: "ST4000*"}, "sdc", ""},
		"transport":             {userdata.DiskMatch{Transport: "ata"}, "sda", ""},
		"a stick, asked for":    {userdata.DiskMatch{Transport: "usb"}, "sdb", ""},
		"rotational":            {userdata.DiskMatch{Rotational: &yes}, "vda", ""},
		"not rotational, large": {userdata.DiskMatch{Rotational: &no, MinSize: 400e9}, "sda", ""},
		"size":                  {userdata.DiskMatch{MinSize: 999e9, MaxSize: 1001e9}, "nvme0n1", ""},
		"medium":                {userdata.DiskMatch{Path: "/dev/sdb-medium"}, "", "is not /dev/sdb-medium"},
		"odd sectors":           {userdata.DiskMatch{Path: "/dev/sdd"}, "", "has sectors of 520 bytes, and the system is made for 512 and 4096"},
		"read-only":             {userdata.DiskMatch{Path: "/dev/sde"}, "", "/dev/sde (21.5 GB, scsi, QEMU HARDDISK) cannot be written to"},
		"too large a wish":      {userdata.DiskMatch{MinSize: 5e12}, "", "is of another size"},
		"no transport":          {userdata.DiskMatch{Transport: "virtio", Model: "x"}, "", "has model none, not x"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Choose(scanned(t), c.want, "sr0", need)
			if c.text == "" && (err != nil || got.Name != c.disk) {
				t.Errorf("got %s, %v, want %s", got.Name, err, c.disk)
			}
			var choice *Choice
			if c.text != "" && (!errors.As(err, &choice) || choice.Key != "install.disk" || !strings.Contains(choice.Text, c.text)) {
				t.Errorf("got %v, want %s", err, c.text)
			}
		})
	}
}

func TestChooseNeverTakesTheMedium(t *testing.T) {
	_, err := Choose(scanned(t), userdata.DiskMatch{Path: "/dev/vda"}, "vda", 1)
	if err == nil || !strings.Contains(err.Error(), "/dev/vda (21.5 GB, virtio, serial system) is the medium that the machine runs from") {
		t.Errorf("got %v", err)
	}
	if got, err := Choose(scanned(t), userdata.DiskMatch{Rotational: new(bool)}, "mmcblk0", 1<<30); err != nil || got.Name != "sda" {
		t.Errorf("the next one: got %s, %v", got.Name, err)
	}
}

// Twins are told apart by what does not change from boot to boot.
func TestChooseAmongTwins(t *testing.T) {
	one := Disk{Name: "sda", Size: 1 << 40, Sector: 512, Serial: "B"}
	two := Disk{Name: "sdb", Size: 1 << 40, Sector: 512, Serial: "A"}
	for _, disks := range [][]Disk{{one, two}, {two, one}} {
		if got, err := Choose(disks, userdata.DiskMatch{}, "", 1); err != nil || got.Serial != "A" {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	two.Serial = "B"
	if _, err := Choose([]Disk{one, two}, userdata.DiskMatch{Serial: "B"}, "", 1); err == nil || !strings.Contains(err.Error(), "is more than one disk") {
		t.Errorf("two disks of one serial number: got %v", err)
	}
	if _, err := Choose(nil, userdata.DiskMatch{}, "", 1); err == nil || !strings.Contains(err.Error(), "the machine shows none") {
		t.Errorf("no disk: got %v", err)
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0.0 MB", 1 << 20: "1.0 MB", 999e6: "999.0 MB", 480103981056: "480.1 GB", 4e12: "4.0 TB", 5e18: "5000.0 PB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
