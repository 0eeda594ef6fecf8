package userdata

import (
	"reflect"
	"testing"
)

func TestInstall(t *testing.T) {
	yes, no := true, false
	for name, c := range map[string]struct {
		text string
		want Install
	}{
		"smallest":    {"disk: smallest\n", Install{Then: ThenReboot}},
		"path":        {"disk: /dev/sda\n  wipe: true\n", Install{Disk: DiskMatch{Path: "/dev/sda"}, Wipe: true, Then: ThenReboot}},
		"path by id":  {"disk: /dev/disk/by-id/ata-X_1\n", Install{Disk: DiskMatch{ByID: "ata-X_1"}, Then: ThenReboot}},
		"by id":       {"disk: {by-id: wwn-0x5000}\n  wipe: yes\n", Install{Disk: DiskMatch{ByID: "wwn-0x5000"}, Wipe: true, Then: ThenReboot}},
		"id with dir": {"disk: {by-id: /dev/disk/by-id/x}\n", Install{Disk: DiskMatch{ByID: "x"}, Then: ThenReboot}},
		"serial":      {"disk: {serial: S1}\n  then: poweroff\n", Install{Disk: DiskMatch{Serial: "S1"}, Then: ThenPowerOff}},
		"attributes": {"disk: {model: 'INTEL *', transport: nvme, rotational: false}\n",
			Install{Disk: DiskMatch{Model: "INTEL *", Transport: "nvme", Rotational: &no}, Then: ThenReboot}},
		"rotational": {"disk: {rotational: true, wwn: naa.5}\n", Install{Disk: DiskMatch{WWN: "naa.5", Rotational: &yes}, Then: ThenReboot}},
		"size": {"disk: {size: 480GB}\n",
			Install{Disk: DiskMatch{MinSize: 479_500_000_000, MaxSize: 480_500_000_000}, Then: ThenReboot}},
		"bounds": {"disk: {min-size: 1TiB, max-size: 2 TiB}\n", Install{Disk: DiskMatch{MinSize: 1 << 40, MaxSize: 2 << 40}, Then: ThenReboot}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := said(t, "install:\n  "+c.text, "")
			c.want.Place = Place{"ud", 3, "install"}
			if cfg.Install == nil || !reflect.DeepEqual(*cfg.Install, c.want) {
				t.Errorf("got %+v, want %+v", cfg.Install, c.want)
			}
		})
	}
	if cfg := said(t, "hostname: a\n", ""); cfg.Install != nil {
		t.Errorf("nobody asks to install: got %+v", cfg.Install)
	}
}

// Half of a choice of disk is a wrong choice: sections are not merged.
func TestInstallIsReplacedWhole(t *testing.T) {
	cfg, problems := Load(Documents{
		Vendor: []Document{{Source: "v", Data: []byte("#cloud-config\ninstall: {disk: /dev/sda, wipe: true}\n")}},
		User:   []Document{{Source: "u", Data: []byte("#cloud-config\ninstall: {disk: {serial: S}}\n")}},
	})
	want := &Install{Place: Place{"u", 2, "install"}, Disk: DiskMatch{Serial: "S"}, Then: ThenReboot}
	if len(problems) > 0 || !reflect.DeepEqual(cfg.Install, want) {
		t.Errorf("got %+v, %v, want %+v", cfg.Install, problems, want)
	}
}

func TestInstallRefused(t *testing.T) {
	const keys = "by-id, max-size, min-size, model, path, rotational, serial, size, transport, wwn"
	for name, c := range map[string]struct{ text, want string }{
		"nothing": {"install: {}\n", "line 2: install: names no disk; write disk: smallest, a path like disk: /dev/sda, or a map of " + keys},
		"no disk": {"install:\n  wipe: true\n", "line 3: install: names no disk; write disk: smallest, a path like disk: /dev/sda, or a map of " + keys},
		"empty":   {"install: {disk: {}}\n", "line 2: install.disk: says nothing; write smallest, a path like /dev/sda, or one of " + keys},
		"wipe of any": {"install:\n  disk: smallest\n  wipe: true\n",
			"line 3: install.wipe: true needs a disk that is named exactly; give install.disk.path, by-id, serial or wwn"},
		"wipe by model": {"install: {disk: {model: X}, wipe: true}\n",
			"line 2: install.wipe: true needs a disk that is named exactly; give install.disk.path, by-id, serial or wwn"},
		"wipe": {"install: {disk: sda}\n", `line 2: install.disk: "sda" is no disk; write smallest, a path like /dev/sda, or one like /dev/disk/by-id/...`},
		"path": {"install:\n  disk:\n    path: /dev/../sda\n",
			`line 4: install.disk.path: "/dev/../sda" is no disk; write smallest, a path like /dev/sda, or one like /dev/disk/by-id/...`},
		"by id":     {"install: {disk: {by-id: a/b}}\n", `line 2: install.disk.by-id: "a/b" is no name of /dev/disk/by-id/`},
		"transport": {"install: {disk: {transport: ide}}\n", `line 2: install.disk.transport: "ide": want one of ata, mmc, nvme, sas, scsi, usb, virtio`},
		"model":     {"install: {disk: {model: '['}}\n", `line 2: install.disk.model: "[" is not a pattern; * stands for any text, ? for one character`},
		"serial":    {"install: {disk: {serial: ' '}}\n", "line 2: install.disk.serial: is empty"},
		"size":      {"install: {disk: {size: 480G}}\n", `line 2: install.disk.size: "480G" is not a size; write it like 480GB or 1TiB`},
		"bounds": {"install: {disk: {min-size: 2GB, max-size: 1GB}}\n",
			"line 2: install.disk: no disk has min-size (2000000000 bytes) and is not above max-size (1000000000 bytes); size alone means both"},
		"then":    {"install: {disk: smallest, then: halt}\n", `line 2: install.then: "halt": want reboot or poweroff`},
		"unknown": {"install: {disk: smallest, wipes: true}\n", "line 2: install.wipes: is not a key of install; did you mean wipe?"},
		"unknown of the disk": {"install: {disk: {seriel: x}}\n",
			"line 2: install.disk.seriel: is not a key of install.disk; did you mean serial?"},
		"a list": {"install: [a]\n", "line 2: install: is a list where a map of keys is wanted"},
	} {
		t.Run(name, func(t *testing.T) {
			_, problems := Load(user("#cloud-config\n" + c.text))
			if want := "ud: " + c.want; len(problems) == 0 || problems[0].String() != want || !problems[0].Fatal {
				t.Errorf("got %v\nwant %s", problems, want)
			}
		})
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string][2]int64{
		"0": {0, 1}, "512": {512, 1}, "512B": {512, 1}, "1kB": {1000, 1000}, "1 KiB": {1024, 1024}, "480GB": {480e9, 1e9}, "2TiB": {2 << 40, 1 << 40},
	} {
		if size, unit, ok := ParseSize(s); !ok || size != want[0] || unit != want[1] {
			t.Errorf("%q: got %d, %d, %v, want %v", s, size, unit, ok, want)
		}
	}
	for _, s := range []string{"", "GB", "1G", "1i", "1.5GB", "-1GB", "1GBB", "999999999999999TiB", "1 GB x"} {
		if _, _, ok := ParseSize(s); ok {
			t.Errorf("%q: taken", s)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	f.Add("480GB")
	f.Fuzz(func(t *testing.T, s string) {
		if size, unit, ok := ParseSize(s); ok && (size < 0 || unit < 1 || size%unit != 0) {
			t.Errorf("%q: got %d in units of %d", s, size, unit)
		}
	})
}
