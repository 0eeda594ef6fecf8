package install

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keelson/init/layout"
	"keelson/init/userdata"
)

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// medium is what a machine installs from: an EFI system partition that differs in its first sectors from the live one, with a
// hole in it, and a root. esp is the installed one.
func medium(t testing.TB, esp []byte) (*layout.Payload, func(int) (io.ReaderAt, error), map[int][]byte) {
	t.Helper()
	core, root := noise(1, 5000), noise(2, 3<<20-4096)
	own := bytes.Clone(esp[:4096])
	live := append(noise(3, 8192), esp[4096:]...)
	sum := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	p := &layout.Payload{
		Version: "1.2", BootCode: base64.StdEncoding.EncodeToString([]byte("boot code")),
		Partitions: []layout.PayloadPartition{
			{Number: layout.NumberBIOS, Label: layout.LabelBIOS, Type: layout.TypeBIOSBoot, Size: layout.BIOSSize, Length: int64(len(core)), SHA256: sum(core),
				Extents: []layout.PayloadExtent{{From: layout.NumberBIOS, Length: int64(len(core))}}},
			{Number: layout.NumberESP, Label: layout.LabelESP, Type: layout.TypeESP, Size: int64(len(esp)), Length: int64(len(esp)), SHA256: sum(esp),
				Extents: []layout.PayloadExtent{{From: layout.NumberPayload, Offset: 512, Length: 4096}, {From: layout.NumberESP, Offset: 8192, Length: int64(len(esp)) / 2, To: 4096}}},
			{Number: layout.NumberRootA, Label: layout.LabelRootA, Type: layout.TypeRootAMD64, Attributes: layout.AttrRoot, Size: 3 << 20, Length: int64(len(root)), SHA256: sum(root),
				Extents: []layout.PayloadExtent{{From: layout.NumberLive, Length: int64(len(root))}}},
		},
	}
	if len(bytes.Trim(esp[4096+len(esp)/2:], "\x00")) > 0 {
		t.Fatal("the test's EFI system partition has data in its second half")
	}
	parts := map[int][]byte{layout.NumberBIOS: core, layout.NumberESP: live, layout.NumberLive: root, layout.NumberPayload: append(make([]byte, 512), own...)}
	return p, func(number int) (io.ReaderAt, error) { return bytes.NewReader(parts[number]), nil }, parts
}

func documents() userdata.Documents {
	return userdata.Documents{
		User:   []userdata.Document{{Source: "cidata volume /dev/vdb: user-data", Data: []byte("#cloud-config\ninstall: {disk: smallest}\n")}},
		Vendor: []userdata.Document{{Source: "cidata volume /dev/vdb: vendor-data", Data: []byte("#cloud-config\nrke2: {token: secret}\n")}},
	}
}

// smallESP is none that a firmware would take.
func smallESP() []byte { return append(noise(4, 1<<20), make([]byte, 3<<20)...) }

// host runs the tools of the machine the test runs on.
type host struct{ calls []string }

func (h *host) Run(ctx context.Context, argv ...string) (string, int, error) {
	h.calls = append(h.calls, filepath.Base(argv[0]))
	cmd := exec.CommandContext(ctx, filepath.Base(argv[0]), argv[1:]...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), exit.ExitCode(), nil
	}
	return string(out), 0, err
}

// sysfs makes a /sys of disks: attributes by file name.
func sysfs(t testing.TB, disks map[string]map[string]string) string {
	t.Helper()
	sys := t.TempDir()
	for name, files := range disks {
		real := filepath.Join(sys, "devices", files["@"], "block", name)
		for file, text := range files {
			if file == "@" {
				continue
			}
			path := filepath.Join(real, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		class := filepath.Join(sys, "class/block")
		if err := os.MkdirAll(class, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(real, filepath.Join(class, name)); err != nil {
			t.Fatal(err)
		}
	}
	return sys
}

const diskSize = 1400 << 20

// machine is one with a disk vda, which is a file.
func machine(t *testing.T, esp []byte) (c Config, disk string, said *[]string) {
	t.Helper()
	dev := t.TempDir()
	disk = filepath.Join(dev, "vda")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, diskSize); err != nil {
		t.Fatal(err)
	}
	said = &[]string{}
	p, from, _ := medium(t, esp)
	return Config{
		Want: userdata.Install{Then: userdata.ThenReboot}, Documents: documents(), Payload: p, Source: from, Medium: "sr0",
		Sys: sysfs(t, map[string]map[string]string{"vda": {"@": "pci0/virtio1", "size": fmt.Sprint(diskSize / 512), "queue/logical_block_size": "512", "serial": "system"}}),
		Dev: dev, Temp: t.TempDir(), Tools: &host{},
		Say: func(format string, args ...any) { *said = append(*said, fmt.Sprintf(format, args...)) },
	}, disk, said
}

func needTools(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not here: go run ./imagebuild deps --install", tool)
		}
	}
}

// fat is a file system of that size with a file in it, whose second half is empty.
func fat(t *testing.T, size int64) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fat")
	if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.fat", "-F", "32", "-n", layout.LabelESP, file).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.fat: %v\n%s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The finished disk, as the reference tools see it.
func TestInstall(t *testing.T) {
	needTools(t, "mkfs.fat", "fsck.fat", "mke2fs", "e2fsck", "sgdisk", "debugfs")
	esp := fat(t, 40<<20)
	for _, uefi := range []bool{false, true} {
		t.Run(fmt.Sprintf("UEFI %v", uefi), func(t *testing.T) {
			c, disk, said := machine(t, esp)
			c.UEFI = uefi
			p, err := New(context.Background(), c)
			if err != nil {
				t.Fatal(err)
			}
			if p.Holds.Kind != Empty {
				t.Errorf("an empty disk: got %+v", p.Holds)
			}
			p.Print()
			if err := p.Run(context.Background()); err != nil {
				t.Fatalf("%v\n%s", err, strings.Join(*said, "\n"))
			}
			finished(t, c, disk, esp)
			if left, err := os.ReadDir(c.Temp); err != nil || len(left) > 0 {
				t.Errorf("left in memory: %v, %v", left, err)
			}
		})
	}
}

func finished(t *testing.T, c Config, disk string, esp []byte) {
	t.Helper()
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	if out := run("sgdisk", "-v", disk); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk: %s", out)
	}
	out := run("sgdisk", "-p", disk)
	for _, label := range []string{layout.LabelBIOS, layout.LabelESP, layout.LabelRootA, layout.LabelRootB, layout.LabelState} {
		if !strings.Contains(out, label) {
			t.Errorf("no %s:\n%s", label, out)
		}
	}
	if want := Identity("", c.Documents).String(); !strings.Contains(strings.ToLower(out), want) {
		t.Errorf("disk without the GUID %s:\n%s", want, out)
	}
	b := begin(t, disk, 2<<20+len(esp))
	if !bytes.HasPrefix(b, []byte("boot code\x00")) {
		t.Errorf("boot code: got %q", b[:16])
	}
	if !bytes.Equal(b[2<<20:], esp) {
		t.Error("the EFI system partition is not the one that was built")
	}
	volume := filepath.Join(t.TempDir(), "esp")
	if err := os.WriteFile(volume, b[2<<20:], 0o600); err != nil {
		t.Fatal(err)
	}
	run("fsck.fat", "-n", volume)
	p, err := New(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	if p.Holds.Kind != Installed {
		t.Errorf("after it all: got %+v, want the finished installation", p.Holds)
	}
	state := fmt.Sprintf("%s?offset=%d", disk, p.Table.Entries[layout.NumberState-1].First*512)
	run("e2fsck", "-f", "-n", state)
	for path, want := range map[string]string{
		"/lib/keelson/user-data": "Mode:  0600", "/lib/keelson": "Mode:  0755", "/": "Mode:  0755",
	} {
		if got := run("debugfs", "-R", "stat "+path, state); !strings.Contains(got, want) {
			t.Errorf("%s: want %s:\n%s", path, want, got)
		}
	}
	if got := run("debugfs", "-R", "cat /lib/keelson/user-data", state); !strings.Contains(got, `"user-data"`) || !strings.Contains(got, `"vendor-data"`) {
		t.Errorf("user-data on the state: got %s", got)
	}
}

func TestRefusesWhatADiskHolds(t *testing.T) {
	needTools(t, "mke2fs")
	c, disk, _ := machine(t, smallESP())
	if _, _, err := c.Tools.Run(context.Background(), "mke2fs", "-q", "-F", "-L", "precious", disk); err != nil {
		t.Fatal(err)
	}
	before := sumOf(t, disk)
	_, err := New(context.Background(), c)
	var choice *Choice
	if !errors.As(err, &choice) || choice.Key != "install.disk" || !strings.Contains(choice.Text, `/dev/vda (1.5 GB, virtio, serial system) holds an ext file system with the label "precious" and is not touched`) {
		t.Errorf("got %v", err)
	}
	if sumOf(t, disk) != before {
		t.Error("the disk was written to")
	}
	c.Want.Wipe, c.Want.Disk = true, userdata.DiskMatch{Serial: "system"}
	p, err := New(context.Background(), c)
	if err != nil || p.Holds.Kind != Foreign {
		t.Errorf("wipe: got %+v, %v", p, err)
	}
	if sumOf(t, disk) != before {
		t.Error("planning has written to the disk")
	}
}

func sumOf(t *testing.T, file string) [32]byte {
	t.Helper()
	return sha256.Sum256(begin(t, file, 8<<20))
}

// begin is the beginning of a disk.
func begin(t *testing.T, file string, size int) []byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPlanIsPrinted(t *testing.T) {
	c, _, said := machine(t, smallESP())
	p, err := New(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	p.Print()
	want := `install: plan: Keelson 1.2 to /dev/vda (1.5 GB, virtio, serial system)
install: plan: the disk is empty
install: plan: partition 1: KEELSON-BIOS, 1.0 MB
install: plan: partition 2: KEELSON-ESP, 4.2 MB
install: plan: partition 3: KEELSON-ROOT-A, 192.9 MB
install: plan: partition 4: KEELSON-ROOT-B, 192.9 MB
install: plan: partition 5: KEELSON-STATE, 1.1 GB
install: plan: user-data goes along; then reboot`
	if got := strings.Join(*said, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A user-data of another meaning is another installation; where it came from is none.
func TestIdentity(t *testing.T) {
	docs := documents()
	id := Identity("i-1", docs)
	moved := documents()
	moved.User[0].Source, moved.Vendor[0].Data = "cidata volume /dev/sdc: user-data", []byte("other")
	if got := Identity("i-1", moved); got != id {
		t.Errorf("the same user-data from elsewhere: got %s, want %s", got, id)
	}
	changed := documents()
	changed.User[0].Data = append(changed.User[0].Data, '\n')
	if Identity("i-1", changed) == id || Identity("i-2", docs) == id {
		t.Error("other user-data, or another instance, has the same identity")
	}
	if s := id.String(); s[14] != '8' || !strings.Contains("89ab", s[19:20]) {
		t.Errorf("%s is no GUID of version 8", s)
	}
}

// What is said of a medium or a disk that fails.
func TestRunSaysWhatFailed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config, map[int][]byte)
		want   string
	}{
		"damaged medium": {func(_ *Config, parts map[int][]byte) { parts[layout.NumberLive][9] ^= 1 }, "verify KEELSON-ROOT-A: the medium is damaged"},
		"short medium":   {func(_ *Config, parts map[int][]byte) { parts[layout.NumberLive] = parts[layout.NumberLive][:100] }, "write KEELSON-ROOT-A: read the medium: partition 3 at 0"},
		"no mke2fs":      {func(c *Config, _ map[int][]byte) { c.Tools = failing{} }, "make KEELSON-STATE: make the file system on"},
		"disk in use": {func(c *Config, _ map[int][]byte) {
			c.Release = func(string) error { return errors.New("the state is busy") }
		}, "the state is busy"},
	} {
		t.Run(name, func(t *testing.T) {
			config, _, _ := machine(t, smallESP())
			p, _, parts := medium(t, smallESP())
			config.Payload, config.Source = p, func(n int) (io.ReaderAt, error) { return bytes.NewReader(parts[n]), nil }
			c.change(&config, parts)
			plan, err := New(context.Background(), config)
			if err != nil {
				t.Fatal(err)
			}
			if err := plan.Run(context.Background()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

type failing struct{}

func (failing) Run(context.Context, ...string) (string, int, error) { return "no space\n", 1, nil }

func TestTooSmall(t *testing.T) {
	c, _, _ := machine(t, smallESP())
	c.Payload.Partitions[2].Size = 200 << 20
	_, err := New(context.Background(), c)
	if err == nil || !strings.Contains(err.Error(), "is too small: the system needs 1.5 GB") {
		t.Errorf("got %v", err)
	}
}
