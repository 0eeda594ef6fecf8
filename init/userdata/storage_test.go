package userdata

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func one(text string) (*Config, []Problem) {
	return Load(Documents{User: []Document{{Source: "u", Data: []byte("#cloud-config\n" + text)}}})
}

func TestStorage(t *testing.T) {
	place := func(line int, key string) Place { return Place{"u", line, key} }
	for name, c := range map[string]struct {
		text string
		want Storage
	}{
		"disks": {"disk_setup:\n  /dev/sdb: {table_type: gpt, layout: true}\n  /dev/sdc:\n    layout: [33, [33, 82], 34]\n    overwrite: yes\n  /dev/sdd: {layout: false}\n",
			Storage{Disks: []Disk{{place(3, "disk_setup./dev/sdb"), "/dev/sdb", []int{100}, false}, {place(4, "disk_setup./dev/sdc"), "/dev/sdc", []int{33, 33, 34}, true}}}},
		"file systems": {"fs_setup:\n- {device: /dev/sdb, partition: auto, label: data, filesystem: ext4}\n- {device: /dev/sdb, partition: 2, overwrite: true}\n- {device: LABEL=x, partition: any}\n" +
			"disk_setup: {/dev/sdb: {layout: [50, 50]}}\n",
			Storage{Disks: []Disk{{place(6, "disk_setup./dev/sdb"), "/dev/sdb", []int{50, 50}, false}},
				Filesystems: []Filesystem{{place(3, "fs_setup[0]"), "/dev/sdb", 1, "data", false}, {place(4, "fs_setup[1]"), "/dev/sdb", 2, "", true}, {place(5, "fs_setup[2]"), "LABEL=x", 0, "", false}}}},
		"mounts": {"mounts:\n- [/dev/sdb1, /var/lib/rancher]\n- [LABEL=data, /mnt, ext4, 'noatime,nofail,x-systemd.automount,data=ordered', '0', '2']\n- [UUID=1, /run/data, auto, ro]\n- [sdc, null]\n",
			Storage{Mounts: []Mount{{place(3, "mounts[0]"), "/dev/sdb1", "/var/lib/rancher", "auto", nil, true},
				{place(4, "mounts[1]"), "LABEL=data", "/mnt", "ext4", []string{"noatime", "data=ordered"}, true},
				{place(5, "mounts[2]"), "UUID=1", "/run/data", "auto", []string{"ro"}, false}}}},
		"swap":           {"swap: {filename: /swap.img, size: auto, maxsize: 2G}\n", Storage{Swap: &Swap{place(2, "swap"), DefaultSwap, 0, 2 << 30}}},
		"swap by bytes":  {"swap: {filename: /var/lib/swap, size: 536870912}\n", Storage{Swap: &Swap{place(2, "swap"), "/var/lib/swap", 512 << 20, 0}}},
		"no swap":        {"swap: {size: 0}\n", Storage{}},
		"no megabytes":   {"swap: {size: 0M}\n", Storage{}},
		"no swap later":  {"swap: {filename: /var/s, size: '0'}\n", Storage{}},
		"nothing at all": {"mounts: []\nfs_setup:\ndisk_setup: {}\n", Storage{}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, problems := one(c.text)
			if Refused(problems) || !reflect.DeepEqual(cfg.Storage, c.want) {
				t.Errorf("got %+v %v\nwant %+v", cfg.Storage, problems, c.want)
			}
		})
	}
}

func TestStorageRefused(t *testing.T) {
	for text, want := range map[string]string{
		"disk_setup: {ephemeral0: {layout: true}}\n":           `line 2: disk_setup.ephemeral0: "ephemeral0" is no device`,
		"disk_setup:\n  /dev/sdb: {layout: remove}\n":          "line 3: disk_setup./dev/sdb.layout: remove is not supported",
		"disk_setup: {sdb: {layout: [60, 60]}}\n":              "is 120 % of the disk",
		"disk_setup: {sdb: {layout: [[1, 2, 3]]}}\n":           "is a list of 3 where percent and type are wanted",
		"disk_setup: {sdb: {table_type: apm}}\n":               `"apm" is not known; write gpt`,
		"disk_setup: {sdb: {layouts: true}}\n":                 "did you mean layout?",
		"fs_setup:\n- {label: a}\n":                            "line 3: fs_setup[0]: has no device",
		"fs_setup: [{device: sdb, filesystem: xfs}]\n":         `fs_setup[0].filesystem: "xfs" cannot be made on a node; write ext4`,
		"fs_setup: [{device: sdb, label: KEELSON-STATE}]\n":    `"KEELSON-STATE" cannot be a label`,
		"fs_setup: [{device: sdb, partition: first}]\n":        `"first" is no partition`,
		"mounts: [[/dev/sdb]]\n":                               "mounts[0]: has 1 words",
		"mounts: [[../sdb, /mnt]]\n":                           `mounts[0][0]: "../sdb" is no device`,
		"mounts: [[sdb, /mnt, nfs]]\n":                         `mounts[0][2]: "nfs" is not known`,
		"mounts: [[sdb, /etc/x]]\n":                            `mounts[0][1]: nothing can be mounted on "/etc/x"`,
		"mounts: [[sdb, /var]]\n":                              "nothing can be mounted",
		"mounts: [[sdb, /var/lib]]\n":                          "nothing can be mounted",
		"mounts: [[sdb, /var/lib/keelson/x]]\n":                "nothing can be mounted",
		"mounts: [[sdb, /var/log/keelson]]\n":                  "nothing can be mounted",
		"mounts: [[sdb, /var/../etc]]\n":                       "nothing can be mounted",
		"mounts: [[sdb, /run/keelson]]\n":                      "nothing can be mounted",
		"swap: {filename: /etc/swap}\n":                        `swap.filename: "/etc/swap" cannot be the swap file`,
		"swap: {size: 2X}\n":                                   `swap.size: "2X" is no size`,
		"power_state:\n  delay: now\n":                         "line 3: power_state: has no mode; add mode: poweroff or mode: reboot",
		"power_state: {condition: false}\n":                    "power_state: has no mode",
		"power_state: {mode: explode}\n":                       `power_state.mode: "explode" is not known`,
		"power_state: {mode: reboot, delay: soon}\n":           `power_state.delay: "soon" is no delay`,
		"power_state: {mode: reboot, condition: test -e /x}\n": "power_state.condition: is a text where true or false is wanted",
	} {
		_, problems := one(text)
		all := ""
		for _, p := range problems {
			all += p.String() + "\n"
		}
		if !Refused(problems) || !strings.Contains(all, want) {
			t.Errorf("%s: got %s, want %s", text, all, want)
		}
	}
}

func TestPowerState(t *testing.T) {
	for text, want := range map[string]Power{
		"{mode: reboot}":                {"reboot", 0},
		"{mode: halt, delay: now}":      {"poweroff", 0},
		"{mode: poweroff, delay: '+5'}": {"poweroff", 5 * time.Minute},
		"{mode: poweroff, delay: 5, message: bye, timeout: 30, condition: true}": {"poweroff", 5 * time.Minute},
		"{mode: poweroff, condition: false}":                                     {},
		"{}":                                                                     {},
		"null":                                                                   {},
	} {
		if cfg, problems := one("power_state: " + text + "\n"); len(problems) != 0 || cfg.Power != want {
			t.Errorf("%s: got %+v %v, want %+v", text, cfg.Power, problems, want)
		}
	}
}

func TestSSHKeys(t *testing.T) {
	cfg, problems := one("ssh_authorized_keys: [ssh-ed25519 A a@b, ssh-rsa B]\n")
	if Refused(problems) || len(cfg.Files) != 1 || cfg.Files[0].Path != "/etc/ssh/authorized_keys" || cfg.Files[0].Mode != 0o600 ||
		string(cfg.Files[0].Data) != "ssh-ed25519 A a@b\nssh-rsa B\n" {
		t.Errorf("got %+v %v", cfg.Files, problems)
	}
	for _, text := range []string{"[A]", `["ssh-rsa A\nssh-rsa B"]`} {
		if _, problems := one("ssh_authorized_keys: " + text + "\n"); !Refused(problems) || problems[0].Key != "ssh_authorized_keys[0]" {
			t.Errorf("%s: got %v", text, problems)
		}
	}
}
