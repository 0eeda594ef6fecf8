package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keelson/init/dmi"
	"keelson/init/metadata"
	"keelson/init/metadata/metadatatest"
	"keelson/init/userdata"
)

// away is a machine in a cloud whose volumes are folders.
func away(t *testing.T, vendor string, files map[string]string) (Config, *folders) {
	t.Helper()
	root := t.TempDir()
	f := &folders{root: root}
	var volumes []Volume
	for name, text := range files {
		write(t, filepath.Join(root, name), text)
	}
	for device, label := range map[string]string{"/dev/vdb": "cidata", "/dev/vdc": "config-2"} {
		if _, err := os.Stat(filepath.Join(root, device)); err == nil {
			volumes = append(volumes, Volume{device, "iso9660", label})
		}
	}
	slices.SortFunc(volumes, func(a, b Volume) int { return strings.Compare(a.Device, b.Device) })
	return Config{
		ESP: "/dev/vda2", Mount: f.mount, Volumes: func() ([]Volume, error) { return volumes, nil },
		Machine: dmi.Identity{SystemVendor: vendor},
	}, f
}

const tree = "../metadata/digitalocean/testdata"

func TestCloudBetweenESPAndAttachments(t *testing.T) {
	cfg, _ := away(t, "DigitalOcean", map[string]string{
		"/dev/vda2/keelson/user-data": "esp", "/dev/vdb/meta-data": "local-hostname: attached\n",
	})
	s := &metadatatest.Server{Folder: tree}
	cfg.Client = s.Start(t, "169.254.169.254:80")
	online := 0
	cfg.Online = func(_ context.Context, network []userdata.Document) error {
		if online++; len(network) != 1 || network[0].Source != "DigitalOcean metadata: way to the service" {
			t.Errorf("network: got %s", sources(network))
		}
		return nil
	}
	docs, err := Collect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := sources(docs.User), "ESP: user-data=esp | DigitalOcean metadata: user-data=#cloud-config\nhostname: from-digitalocean\n"; got != want {
		t.Errorf("user-data: got %s", got)
	}
	if len(docs.Meta) != 2 || docs.Meta[1].Source != "cidata volume /dev/vdb: meta-data" || len(docs.Network) != 1 || online != 1 {
		t.Errorf("got %v %v, online %d", sources(docs.Meta), sources(docs.Network), online)
	}
}

// The network-config of an attached volume goes before the cloud's own way.
func TestNetworkOfVolume(t *testing.T) {
	cfg, _ := away(t, "DigitalOcean", map[string]string{"/dev/vdb/network-config": "version: 2"})
	cfg.ESP, cfg.Client = "", (&metadatatest.Server{Folder: tree}).Start(t, "169.254.169.254:80")
	asked := ""
	cfg.Online = func(_ context.Context, network []userdata.Document) error { asked = sources(network); return nil }
	if _, err := Collect(t.Context(), cfg); err != nil || asked != "cidata volume /dev/vdb: network-config=version: 2" {
		t.Errorf("got %s %v", asked, err)
	}
}

// Nobody is asked over the network where it is not needed.
func TestNotAsked(t *testing.T) {
	for name, c := range map[string]struct {
		vendor string
		files  map[string]string
	}{
		"user-data attached": {"DigitalOcean", map[string]string{"/dev/vdb/user-data": "x"}},
		"ConfigDrive":        {"DigitalOcean", map[string]string{"/dev/vdc/openstack/latest/meta_data.json": `{"uuid":"1","hostname":"n"}`}},
		"no cloud":           {"QEMU", nil},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, f := away(t, c.vendor, c.files)
			cfg.Online = func(context.Context, []userdata.Document) error { t.Error("the network was asked for"); return nil }
			cfg.ESP = ""
			if _, err := Collect(t.Context(), cfg); err != nil || f.open != 0 || Polled(cfg) {
				t.Errorf("got %v, %d volumes open", err, f.open)
			}
		})
	}
}

func TestConfigDrive(t *testing.T) {
	cfg, _ := away(t, "", map[string]string{
		"/dev/vdc/openstack/latest/meta_data.json": `{"uuid":"1","hostname":"n"}`, "/dev/vdc/openstack/latest/user_data": "#cloud-config\n",
	})
	cfg.ESP = ""
	docs, err := Collect(t.Context(), cfg)
	if got := sources(docs.User); err != nil || got != "ConfigDrive /dev/vdc: user-data=#cloud-config\n" {
		t.Errorf("got %s %v", got, err)
	}
	cfg, _ = away(t, "", map[string]string{"/dev/vdc/openstack/latest/user_data": "x"})
	cfg.ESP = ""
	if _, err := Collect(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "ConfigDrive /dev/vdc: meta_data.json: not found") {
		t.Errorf("got %v, want the document that is missing", err)
	}
}

func TestAzureCD(t *testing.T) {
	root := t.TempDir()
	f := &folders{root: root}
	ovf, err := os.ReadFile("../metadata/azure/testdata/ovf-env.xml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, root+"/dev/sr0/ovf-env.xml", string(ovf))
	write(t, root+"/dev/sr1/README", "other")
	docs, err := Collect(t.Context(), Config{
		Mount: f.mount, Machine: dmi.Identity{ChassisTag: "7783-7084-3265-9085-8269-3286-77"},
		Volumes: func() ([]Volume, error) { return []Volume{{"/dev/sr0", "udf", ""}, {"/dev/sr1", "udf", ""}}, nil },
	})
	if got := sources(docs.User); err != nil || got != "Azure CD /dev/sr0: user-data=#cloud-config\nhostname: from-cd\n" {
		t.Errorf("got %s %v", got, err)
	}
	if Reporter(dmi.Identity{ChassisTag: "7783-7084-3265-9085-8269-3286-77"}) == nil || Reporter(dmi.Identity{}) != nil {
		t.Error("want Azure alone to be told")
	}
}

// The CD is gone after the first boot: its custom data stays that of this
// instance, until the metadata has user-data.
func TestAzureWithoutCD(t *testing.T) {
	const own = "02AAB8A4-74EF-476E-8182-F6D2BA4166A6"
	ovf, err := os.ReadFile("../metadata/azure/testdata/ovf-env.xml")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ uuid, user, want string }{
		"next boot":         {own, "", "Azure CD /dev/sr0: user-data=#cloud-config\nhostname: from-cd\n"},
		"disk of another":   {"02AAB8A4-0000", "", ""},
		"user-data instead": {own, "I2Nsb3VkLWNvbmZpZwo=", "Azure metadata: user-data=#cloud-config\n"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &folders{root: t.TempDir()}
			write(t, f.root+"/dev/sr0/ovf-env.xml", string(ovf))
			s := &metadatatest.Server{Before: func(w http.ResponseWriter, r *http.Request) bool {
				fmt.Fprintf(w, `{"compute":{"vmId":"v","name":"n","userData":%q}}`, c.user)
				return true
			}}
			volumes := []Volume{{"/dev/sr0", "udf", ""}}
			cfg := Config{
				Stored: filepath.Join(t.TempDir(), "user-data"), Mount: f.mount, Client: s.Start(t, "169.254.169.254:80"),
				Machine: dmi.Identity{ChassisTag: "7783-7084-3265-9085-8269-3286-77", ProductUUID: own},
				Volumes: func() ([]Volume, error) { return volumes, nil },
			}
			first, err := Collect(t.Context(), cfg)
			if err == nil {
				err = Store(cfg.Stored, first)
			}
			if err != nil || len(s.Asked()) != 0 {
				t.Fatalf("first boot: got %v, asked %q", err, s.Asked())
			}
			volumes, cfg.Machine.ProductUUID = nil, c.uuid
			docs, err := Collect(t.Context(), cfg)
			if got := sources(docs.User); err != nil || got != c.want {
				t.Errorf("got %q %v, want %q", got, err, c.want)
			}
			config, _ := userdata.Load(docs)
			if want := strings.ToLower(c.uuid); config.InstanceID != want {
				t.Errorf("instance: got %q, want %q", config.InstanceID, want)
			}
		})
	}
}

// patient makes Collect wait in time that the test owns, with a cloud that
// gives what answers says, attempt by attempt.
func patient(t *testing.T, stored bool, answers func(attempt int) error) (docs userdata.Documents, said []string, took time.Duration, err error) {
	t.Helper()
	cfg, _ := away(t, "Amazon EC2", nil)
	cfg.ESP = ""
	if stored {
		cfg.Stored = filepath.Join(t.TempDir(), "user-data")
		if err := Store(cfg.Stored, userdata.Documents{User: []userdata.Document{{Source: "old", Data: []byte("old")}}}); err != nil {
			t.Fatal(err)
		}
	}
	attempt := 0
	cfg.Online = func(context.Context, []userdata.Document) error { attempt++; return answers(attempt) }
	cfg.Say = func(line string) { said = append(said, line) }
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		docs, err = Collect(t.Context(), cfg)
		took = time.Since(start)
	})
	return docs, said, took, err
}

func TestPatience(t *testing.T) {
	down := errors.New("network is not ready: eth0: no carrier")
	docs, said, took, err := patient(t, false, func(int) error { return down })
	if !errors.Is(err, ErrUnanswered) || !docs.Empty() || took != patience || len(said) != 1 {
		t.Errorf("without a stored copy: got %v %v after %s, said %q", docs, err, took, said)
	}
	docs, _, took, err = patient(t, true, func(int) error { return down })
	if errors.Is(err, ErrUnanswered) || err == nil || sources(docs.User) != "old=old" || took != patienceStored {
		t.Errorf("with a stored copy: got %v %v after %s", docs, err, took)
	}
	_, said, took, err = patient(t, false, func(n int) error {
		if n < 3 {
			return down
		}
		return metadata.ErrFinal
	})
	if !errors.Is(err, ErrUnanswered) || took != 3*time.Second || len(said) != 1 {
		t.Errorf("refused at the third attempt: got %v after %s, said %q", err, took, said)
	}
}

func TestNamedAddresses(t *testing.T) {
	folder := t.TempDir()
	write(t, folder+"/seed/C-1/user-data", "by SMBIOS")
	write(t, folder+"/one.yaml", "by name")
	s := &metadatatest.Server{Folder: folder}
	sys := t.TempDir()
	write(t, sys+"/class/dmi/id/product_serial", "ds=nocloud;s=http://192.0.2.1/seed/__dmi.chassis-serial-number__;h=node-7\n")
	write(t, sys+"/class/dmi/id/chassis_serial", "C-1\n")
	cfg := Config{
		Volumes: func() ([]Volume, error) { return nil, nil }, Machine: dmi.Load(sys), Client: s.Start(t, "192.0.2.1:80"),
		Cmdline: "quiet cloud-config-url=http://192.0.2.1/one.yaml?key=secret",
	}
	docs, err := Collect(t.Context(), cfg)
	want := "NoCloud at http://192.0.2.1/seed/C-1/: user-data=by SMBIOS | kernel command line: cloud-config-url: http://192.0.2.1/one.yaml=by name"
	if got := sources(docs.User); err != nil || got != want {
		t.Errorf("got %s %v\nwant %s", got, err, want)
	}
	if got := sources(docs.Meta); got != "SMBIOS: ds=nocloud: meta-data=local-hostname: \"node-7\"\n" {
		t.Errorf("got %s", got)
	}
}

func TestSeedFromMetaData(t *testing.T) {
	cfg, _ := away(t, "", map[string]string{"/dev/vdb/meta-data": "seedfrom: http://192.0.2.1/x\n", "/dev/vdb/user-data": "volume"})
	cfg.ESP = ""
	folder := t.TempDir()
	write(t, folder+"/x/user-data", "fetched")
	cfg.Client = (&metadatatest.Server{Folder: folder}).Start(t, "192.0.2.1:80")
	docs, err := Collect(t.Context(), cfg)
	if got := sources(docs.User); err != nil || got != "cidata volume /dev/vdb: user-data=volume | NoCloud at http://192.0.2.1/x/: user-data=fetched" {
		t.Errorf("got %s %v", got, err)
	}
	if !Polled(cfg) {
		t.Error("want a named address looked at again")
	}
}

func TestParseSeed(t *testing.T) {
	for text, want := range map[string]seed{
		"ds=nocloud;s=http://a/b":                         {url: "http://a/b/"},
		`"ds=nocloud-net;seedfrom=http://a/?x=;i=7;h=n" `: {url: "http://a/?x=", id: "7", name: "n"},
		"ds=nocloud":                          {},
		"ds=nocloud;s=http://a/__dmi.x__/":    {url: "http://a/__dmi.x__/"},
		"ds=nocloud;s=http://a/__dmi.unfinis": {url: "http://a/__dmi.unfinis/"},
	} {
		if got, ok := parseSeed(text, "", dmi.Identity{}); !ok || got != want {
			t.Errorf("%s: got %+v %v, want %+v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "ds=ec2", "VMware-56 4d", "nocloud;s=x"} {
		if _, ok := parseSeed(text, "", dmi.Identity{}); ok {
			t.Errorf("%q is taken for a seed", text)
		}
	}
}

func FuzzParseSeed(f *testing.F) {
	f.Add("ds=nocloud;s=http://a/__dmi.system-uuid__;h=x")
	f.Fuzz(func(t *testing.T, text string) {
		s, ok := parseSeed(text, "", dmi.Identity{})
		if ok && !strings.HasPrefix(strings.Trim(strings.TrimSpace(text), `"`), "ds=nocloud") {
			t.Errorf("%q: got %+v", text, s)
		}
	})
}
