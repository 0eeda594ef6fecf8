package scenario

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"keelson/testvm/cidata"
	"keelson/testvm/kube"
	"keelson/testvm/machine"
	"keelson/testvm/qemu"
)

// dataUserData sets up a second disk and the rest of what a document may ask of
// a machine; file is what it writes to that disk.
func dataUserData(file string) []byte {
	return fmt.Appendf(nil, `#cloud-config
hostname: keelson-1
rke2: {role: server}
timezone: Europe/Sofia
ntp: {servers: [192.0.2.123]}
sysctls: {vm.max_map_count: 300007}
modules: [dummy]
disk_setup:
  /dev/disk/by-id/virtio-data: {table_type: gpt, layout: [60, 40]}
fs_setup:
- {device: /dev/disk/by-id/virtio-data, partition: 1, filesystem: ext4, label: data}
- {device: /dev/disk/by-id/virtio-data, partition: 2, filesystem: ext4, label: more}
mounts:
- [LABEL=data, /var/lib/data, ext4, "defaults,noatime"]
- [LABEL=more, /mnt]
swap: {filename: /var/swap.img, size: 64M}
power_state: {mode: poweroff, delay: now}
write_files:
- {path: /var/lib/data/%s, content: "from user-data\n"}
- {path: /etc/rancher/rke2/registries.yaml, permissions: "0600", content: 'mirrors: {docker.io: {endpoint: ["http://%s:%d"]}}'}
`, file, qemu.HostInGuest, the.registry.Port())
}

// The first partition of the data disk begins where init aligns it.
const dataOffset = 1 << 20

// dataTool runs one of e2fsprogs on the first file system of the disk.
func dataTool(t *testing.T, disk string, command ...string) string {
	t.Helper()
	path, err := exec.LookPath(command[0])
	if err != nil {
		t.Skipf("SKIPPED: needs e2fsprogs: %v", err)
	}
	args := append(command[1:], fmt.Sprintf("%s?offset=%d", disk, dataOffset))
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return string(out)
}

// madeWhen tells a file system from one made later in its place.
func madeWhen(t *testing.T, disk string) string {
	t.Helper()
	return strings.Join(regexp.MustCompile(`(?m)^Filesystem (UUID|created): .*$`).FindAllString(dataTool(t, disk, "dumpe2fs", "-h"), -1), "\n")
}

// A second disk is parted, formatted and mounted by the first boot, which then
// switches the machine off, once. The next boot finds the disk as it is, with
// what somebody has written to it since, and all other settings in force.
func TestScenarioDataDisk(t *testing.T) {
	needVM(t)
	disk := filepath.Join(t.TempDir(), "data.raw")
	f, err := os.Create(disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, qemu.Direct, func(c *machine.Config) {
		c.Disks = []qemu.Disk{{Path: disk, Format: "raw", Serial: "data"}}
		c.Seed.UserData = dataUserData("first.txt")
	})
	start(t, m)
	if _, err := m.Booted(within(t, bootLimit)); err != nil {
		t.Fatal(err)
	}
	if reason, err := m.Ended(within(t, bootLimit)); err != nil || reason != "guest-shutdown" {
		t.Fatalf("after power_state: got %q %v, want the machine switched off", reason, err)
	}
	inOrder(t, m, m.Mark())
	made := madeWhen(t, disk)
	if got := dataTool(t, disk, "debugfs", "-R", "cat /first.txt"); !strings.HasSuffix(got, "from user-data\n") {
		t.Errorf("on the disk: got %q", got)
	}
	kept := filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(kept, []byte("written by an application\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	dataTool(t, disk, "debugfs", "-w", "-R", "write "+kept+" /kept.txt")

	if err := m.Reseed(cidata.Volume{UserData: dataUserData("second.txt")}); err != nil {
		t.Fatal(err)
	}
	start(t, m)
	client := becomesReady(t, m) // power_state was followed for this instance
	inForce(t, client)
	if err := m.Shutdown(within(t, shutdownLimit)); err != nil {
		t.Fatal(err)
	}
	inOrder(t, m, m.Mark())
	if got := madeWhen(t, disk); got != made || !strings.Contains(made, "UUID") {
		t.Errorf("the file system was made anew: got\n%s\nwant\n%s", got, made)
	}
	if out := dataTool(t, disk, "e2fsck", "-fn"); strings.Contains(out, "UNEXPECTED INCONSISTENCY") {
		t.Errorf("the disk was not left in order:\n%s", out)
	}
}

// inForce looks at the running node.
func inForce(t *testing.T, client *kube.Client) {
	t.Helper()
	const node = "/proc/1/root"
	look := func(args ...string) string {
		t.Helper()
		out, err := client.RunPod(within(t, changeLimit), kube.Pod{Namespace: "kube-system", Name: "look-" + args[0], Image: workloadImage, Host: true, Args: args})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	out := look("cat", node+"/var/lib/data/kept.txt", node+"/var/lib/data/second.txt", "/proc/1/mountinfo", "/proc/swaps", "/proc/modules",
		"/proc/sys/vm/max_map_count") + look("link", node+"/etc/localtime")
	for what, pattern := range map[string]string{
		"what an application wrote": `(?m)^written by an application$`,
		"the new file":              `(?m)^from user-data$`,
		"first mount":               `(?m) / /var/lib/data .*noatime.* - ext4 /dev/vdc1 `,
		"second mount":              `(?m) / /mnt .* - ext4 /dev/vdc2 `,
		"swap":                      `(?m)^/(var/)?swap\.img\s+file\s+655\d\d\b`,
		"module":                    `(?m)^dummy `,
		"kernel setting":            `(?m)^300007$`,
		"time zone":                 `(?m)^/usr/share/zoneinfo/Europe/Sofia$`,
	} {
		if !regexp.MustCompile(pattern).MatchString(out) {
			t.Errorf("%s: %s is not in\n%.4000s", what, pattern, out)
		}
	}
}
