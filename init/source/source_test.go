package source

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keelson/init/userdata"
)

// write makes a file and its folders.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// folders stands for mounting: a device is the folder of the same name.
type folders struct {
	root   string
	open   int
	failed string // device that cannot be mounted
}

func (f *folders) mount(v Volume) (Mounted, error) {
	if v.Device == f.failed {
		return Mounted{}, errors.New("bad superblock")
	}
	f.open++
	return Mounted{Dir: filepath.Join(f.root, v.Device), Close: func() error { f.open--; return nil }}, nil
}

func sources(docs []userdata.Document) string {
	var names []string
	for _, d := range docs {
		names = append(names, d.Source+"="+string(d.Data))
	}
	return strings.Join(names, " | ")
}

func TestCollectOrder(t *testing.T) {
	root := t.TempDir()
	f := &folders{root: root}
	write(t, root+"/dev/vda2/keelson/user-data", "esp")
	write(t, root+"/dev/vda2/keelson/network-config", "net")
	write(t, root+"/dev/vdb/user-data", "cidata")
	write(t, root+"/dev/vdb/vendor-data", "vendor")
	write(t, root+"/dev/vdb/meta-data", " \n")
	write(t, root+"/fw/user-data/raw", "fw")
	write(t, root+"/stored", "{}")
	var loaded []string
	docs, err := Collect(t.Context(), Config{
		Cmdline:    "quiet keelson.user-data=" + base64.StdEncoding.EncodeToString([]byte("cmd?>")) + " panic=10",
		ESP:        "/dev/vda2",
		FwCfg:      root + "/fw",
		Stored:     root + "/stored",
		Volumes:    func() ([]Volume, error) { return []Volume{{"/dev/vdb", "iso9660", "cidata"}}, nil },
		Mount:      f.mount,
		LoadModule: func(names ...string) error { loaded = append(loaded, names...); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "ESP: user-data=esp | cidata volume /dev/vdb: user-data=cidata | fw_cfg: user-data=fw | kernel command line: keelson.user-data=cmd?>"
	if got := sources(docs.User); got != want {
		t.Errorf("user-data: got %s\nwant %s", got, want)
	}
	if got, want := sources(docs.Vendor), "cidata volume /dev/vdb: vendor-data=vendor"; got != want {
		t.Errorf("vendor-data: got %s, want %s", got, want)
	}
	if len(docs.Meta) != 0 || len(docs.Network) != 1 {
		t.Errorf("got %v %v, want no meta-data and one network-config", docs.Meta, docs.Network)
	}
	if !docs.User[3].Public || docs.User[0].Public {
		t.Error("want the command line public, and it alone")
	}
	if f.open != 0 {
		t.Errorf("%d volumes are still mounted", f.open)
	}
	if want := []string{"vfat", "nls_cp437", "nls_ascii", "isofs"}; !slices.Equal(loaded, want) {
		t.Errorf("modules: got %v, want %v", loaded, want)
	}
}

func TestOneBrokenSourceDoesNotHideTheOthers(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/fw/user-data/raw", "fw")
	docs, err := Collect(t.Context(), Config{
		ESP: "/dev/vda2", FwCfg: root + "/fw", Mount: (&folders{root: root, failed: "/dev/vda2"}).mount,
		Volumes: func() ([]Volume, error) { return nil, nil },
	})
	if err == nil || !strings.Contains(err.Error(), "ESP: bad superblock") {
		t.Errorf("got %v, want the ESP's error", err)
	}
	if got, want := sources(docs.User), "fw_cfg: user-data=fw"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestStoredCopy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "user-data")
	none := func() ([]Volume, error) { return nil, nil }
	if docs, err := Collect(t.Context(), Config{Stored: path, Volumes: none}); err != nil || !docs.Empty() {
		t.Fatalf("before: got %v %v, want nothing", docs, err)
	}
	want := userdata.Documents{
		User:    []userdata.Document{{Source: "a", Data: []byte("#cloud-config\n\xff")}},
		Network: []userdata.Document{{Source: "b", Data: []byte("x"), Public: true}},
	}
	if err := Store(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := Collect(t.Context(), Config{Stored: path, Volumes: none})
	if err != nil || sources(got.User) != sources(want.User) || !got.Network[0].Public {
		t.Errorf("got %v %v, want %v", got, err, want)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got %v %v, want mode 0600", st, err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("got %v %v, want the one file", left, err)
	}
	write(t, path, "{")
	if _, err := Collect(t.Context(), Config{Stored: path, Volumes: none}); err == nil {
		t.Error("want an error for a damaged copy")
	}
}

func TestSettleWaitsForADevice(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/dev/sr0/user-data", "late")
	events := 0
	docs, err := Collect(t.Context(), Config{
		Settle: time.Minute,
		Volumes: func() ([]Volume, error) {
			if events < 2 {
				return nil, nil
			}
			return []Volume{{"/dev/sr0", "iso9660", "cidata"}}, nil
		},
		NextDevice: func(context.Context) error { events++; return nil },
		Mount:      (&folders{root: root}).mount,
	})
	if err != nil || sources(docs.User) != "cidata volume /dev/sr0: user-data=late" {
		t.Errorf("got %s %v, want the volume that came late", sources(docs.User), err)
	}
}

func TestSettleEnds(t *testing.T) {
	docs, err := Collect(t.Context(), Config{
		Settle:     time.Millisecond,
		Volumes:    func() ([]Volume, error) { return nil, nil },
		NextDevice: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	})
	if err != nil || !docs.Empty() {
		t.Errorf("got %v %v, want nothing and no error", docs, err)
	}
}

func TestReadFileRefuses(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/secret", "x")
	if err := os.Symlink(dir+"/secret", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/big", strings.Repeat("a", maxDocument+1))
	for name, want := range map[string]string{"link": "too many levels", "big": "larger than", ".": "not a regular file"} {
		t.Run(name, func(t *testing.T) {
			var docs userdata.Documents
			err := readFile(filepath.Join(dir, name), "x", "user-data", &docs)
			if err == nil || !strings.Contains(err.Error(), want) || !docs.Empty() {
				t.Errorf("got %v %v, want an error with %q", err, docs, want)
			}
		})
	}
}

func TestFromCmdline(t *testing.T) {
	tests := []struct {
		name, cmdline, want string
		ok, fails           bool
	}{
		{"absent", "quiet", "", false, false},
		{"empty", "keelson.user-data=", "", false, false},
		{"padded", "keelson.user-data=YQ==", "a", true, false},
		{"unpadded", "keelson.user-data=YQ", "a", true, false},
		{"quoted", `keelson.user-data="YQ=="`, "a", true, false},
		{"url alphabet", "keelson.user-data=_-8", "\xff\xef", true, false},
		{"last wins", "keelson.user-data=YQ keelson.user-data=Yg", "b", true, false},
		{"not base64", "keelson.user-data=*", "", false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, ok, err := fromCmdline(tt.cmdline)
			if string(doc.Data) != tt.want || ok != tt.ok || (err != nil) != tt.fails {
				t.Errorf("got %q %v %v, want %q %v, error %v", doc.Data, ok, err, tt.want, tt.ok, tt.fails)
			}
		})
	}
}

// The labels that the reference tools write are the ones that are read.
func TestProbeReferenceImages(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/in/user-data", "#cloud-config\n")
	tools := []struct {
		name, fstype, label string
		size                int64
		args                []string
	}{
		{"mkfs.vfat", "vfat", "CIDATA", 1 << 20, []string{"-n", "CIDATA", dir + "/fat12"}},
		{"mkfs.vfat", "vfat", "cidata", 64 << 20, []string{"-F", "32", "-n", "cidata", dir + "/fat32"}},
		{"xorriso", "iso9660", "cidata", 0, []string{"-as", "mkisofs", "-quiet", "-V", "cidata", "-J", "-r", "-o", dir + "/iso", dir + "/in"}},
	}
	for i, tool := range tools {
		image := []string{"/fat12", "/fat32", "/iso"}[i]
		t.Run(image[1:], func(t *testing.T) {
			if _, err := exec.LookPath(tool.name); err != nil {
				t.Skipf("%s is not installed (Debian: dosfstools, xorriso)", tool.name)
			}
			if tool.size > 0 {
				write(t, dir+image, "")
				if err := os.Truncate(dir+image, tool.size); err != nil {
					t.Fatal(err)
				}
			}
			if out, err := exec.Command(tool.name, tool.args...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			f, err := os.Open(dir + image)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if fstype, label := Probe(f); fstype != tool.fstype || label != tool.label {
				t.Errorf("got %q %q, want %q %q", fstype, label, tool.fstype, tool.label)
			}
		})
	}
}

func TestProbeOther(t *testing.T) {
	for name, data := range map[string][]byte{"empty": nil, "zeroes": make([]byte, 1<<16), "text": bytes.Repeat([]byte("x"), 1<<16)} {
		if fstype, label := Probe(bytes.NewReader(data)); fstype != "" || label != "" {
			t.Errorf("%s: got %q %q, want nothing", name, fstype, label)
		}
	}
}

func TestParents(t *testing.T) {
	sys := t.TempDir()
	for _, dir := range []string{"devices/sdb/sdb1", "devices/sdc/sdc1", "class"} {
		if err := os.MkdirAll(filepath.Join(sys, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"sdb": "../devices/sdb", "sdb1": "../devices/sdb/sdb1", "sdc1": "../devices/sdc/sdc1"} {
		if err := os.Symlink(to, filepath.Join(sys, "class", link)); err != nil {
			t.Fatal(err)
		}
	}
	got := parents(filepath.Join(sys, "class"), []Volume{{Device: "/dev/sdb"}, {Device: "/dev/sdb1"}, {Device: "/dev/sdc1"}})
	if len(got) != 2 || got[0].Device != "/dev/sdb" || got[1].Device != "/dev/sdc1" {
		t.Errorf("got %v, want the disk sdb and the partition sdc1", got)
	}
}

func FuzzProbe(f *testing.F) {
	f.Add(append(make([]byte, 510), 0x55, 0xaa))
	f.Add(append(make([]byte, 32768), []byte("\x01CD001\x01")...))
	f.Fuzz(func(t *testing.T, data []byte) {
		fstype, label := Probe(bytes.NewReader(data))
		if len(label) > 32 || fstype == "" && label != "" {
			t.Errorf("got %q %q", fstype, label)
		}
	})
}

func FuzzParseStored(f *testing.F) {
	f.Add([]byte(`{"user-data":[{"source":"a","data":"YQ=="}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if docs, err := parseStored(data); err != nil && !docs.Empty() {
			t.Error("documents beside an error")
		}
	})
}

func FuzzFromCmdline(f *testing.F) {
	f.Add("quiet keelson.user-data=YQ==")
	f.Fuzz(func(t *testing.T, s string) {
		if doc, ok, err := fromCmdline(s); err != nil && ok || ok && !doc.Public {
			t.Error("an accepted document must be public and without an error")
		}
	})
}
