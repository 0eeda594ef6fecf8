package vmware

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"maps"
	"os"
	"strings"
	"testing"

	"keelson/init/dmi"
	"keelson/init/metadata/backdoor"
	"keelson/init/metadata/backdoor/backdoortest"
	"keelson/init/netconfig"
	"keelson/init/userdata"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func gz(t testing.TB, s string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const (
	user   = "#cloud-config\nhostname: from-guestinfo\n"
	vendor = "#cloud-config\ntimezone: Europe/Sofia\n"
	about  = "instance-id: i-7\nlocal-hostname: node-7\nnetwork:\n  version: 2\n  ethernets:\n    nics: {match: {name: \"e*\"}, dhcp4: true}\n"
)

func TestRead(t *testing.T) {
	packed := map[string]string{
		"guestinfo.metadata": b64(gz(t, about)), "guestinfo.metadata.encoding": "gzip+base64",
		"guestinfo.userdata": b64(user) + "\n", "guestinfo.userdata.encoding": "base64",
		"guestinfo.vendordata": vendor,
	}
	short := maps.Clone(packed)
	short["guestinfo.metadata.encoding"], short["guestinfo.userdata.encoding"] = "gz+b64", "b64"
	for name, values := range map[string]map[string]string{
		"encoded": packed, "short names of encodings": short,
		"plain": {"guestinfo.metadata": about, "guestinfo.userdata": user, "guestinfo.vendordata": vendor, "guestinfo.userdata.encoding": " "},
		"JSON":  {"guestinfo.metadata": `{"instance-id":"i-7","network":{"version":2,"ethernets":{"n":{"dhcp4":true}}}}`, "guestinfo.userdata": user, "guestinfo.vendordata": vendor},
		"network as text": {"guestinfo.metadata": "instance-id: i-7\nnetwork: " + b64("version: 2\nethernets: {n: {dhcp4: true}}\n") +
			"\nnetwork.encoding: base64\n", "guestinfo.userdata": user, "guestinfo.vendordata": vendor},
	} {
		t.Run(name, func(t *testing.T) {
			host := &backdoortest.Host{T: t, Values: values}
			docs, err := Read(host.Do, dmi.Identity{ProductUUID: "4219A1B2-0000"})
			if err != nil {
				t.Fatal(err)
			}
			if len(docs.User) != 1 || strings.TrimSpace(string(docs.User[0].Data)) != strings.TrimSpace(user) || docs.User[0].Source != "VMware guestinfo: userdata" {
				t.Errorf("user-data: got %v", docs.User)
			}
			if len(docs.Vendor) != 1 || strings.TrimSpace(string(docs.Vendor[0].Data)) != strings.TrimSpace(vendor) {
				t.Errorf("vendor-data: got %v", docs.Vendor)
			}
			cfg, problems := userdata.Load(docs)
			if userdata.Refused(problems) || cfg.InstanceID != "i-7" || cfg.Hostname != "from-guestinfo" {
				t.Errorf("got %+v %v", cfg, problems)
			}
			if plan, problems := netconfig.Load(docs.Network); len(problems) != 0 || len(plan.Links) != 1 {
				t.Errorf("network: got %+v %v of %v", plan, problems, docs.Network)
			}
			if host.Opened != 0 {
				t.Errorf("%d channels are open", host.Opened)
			}
		})
	}
}

func TestInstanceOfSMBIOS(t *testing.T) {
	for name, c := range map[string]struct {
		values map[string]string
		want   string
	}{
		"without metadata": {map[string]string{"guestinfo.userdata": user}, "4219a1b2-0000"},
		"nothing at all":   {nil, ""},
		"taken away":       {map[string]string{"guestinfo.userdata": "---", "guestinfo.metadata": "  "}, ""},
	} {
		docs, err := Read((&backdoortest.Host{T: t, Values: c.values}).Do, dmi.Identity{ProductUUID: "4219A1B2-0000"})
		if cfg, _ := userdata.Load(docs); err != nil || cfg.InstanceID != c.want || docs.Empty() != (c.want == "") {
			t.Errorf("%s: got %q %v", name, cfg.InstanceID, err)
		}
	}
}

func TestRefused(t *testing.T) {
	for want, values := range map[string]map[string]string{
		"userdata is not base64":                  {"guestinfo.userdata": "***", "guestinfo.userdata.encoding": "base64"},
		"userdata is not gzip":                    {"guestinfo.userdata": b64("plain"), "guestinfo.userdata.encoding": "gzip+base64"},
		`metadata.encoding: "rot13" is not known`: {"guestinfo.metadata": "x", "guestinfo.metadata.encoding": "rot13"},
		"vendordata is larger than 4 MiB":         {"guestinfo.vendordata": b64(gz(t, strings.Repeat("x", 5<<20))), "guestinfo.vendordata.encoding": "gzip+base64"},
		"metadata: network is not base64":         {"guestinfo.metadata": "network: '***'\nnetwork.encoding: base64\n"},
		"VMware guestinfo: ovf-env.xml":           {"guestinfo.ovfEnv": "no XML"},
	} {
		docs, err := Read((&backdoortest.Host{T: t, Values: values}).Do, dmi.Identity{})
		if err == nil || !strings.HasPrefix(err.Error(), Name+": ") || !strings.Contains(err.Error(), want) || !docs.Empty() {
			t.Errorf("got %v %v, want %s", docs, err, want)
		}
	}
	if _, err := Read((&backdoortest.Host{T: t, Refuses: true}).Do, dmi.Identity{}); !errors.Is(err, backdoor.ErrRefused) {
		t.Errorf("got %v, want the refusal", err)
	}
}

func recorded(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + OVF)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOVF(t *testing.T) {
	docs, err := ReadOVF("VMware CD /dev/sr0", recorded(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ got, want string }{
		{string(docs.User[0].Data), "#cloud-config\nhostname: from-ovf\n"},
		{docs.User[0].Source, "VMware CD /dev/sr0: ovf-env.xml: user-data"},
		{string(docs.Meta[0].Data), "instance-id: \"i-ovf\"\nlocal-hostname: \"node-1\"\n"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	if plan, problems := netconfig.Load(docs.Network); len(problems) != 0 || len(plan.Links) != 1 {
		t.Errorf("network: got %+v %v", plan, problems)
	}
	// As a value of guestinfo it is weaker than the values of the same name.
	host := &backdoortest.Host{T: t, Values: map[string]string{"guestinfo.ovfEnv": string(recorded(t)), "guestinfo.userdata": user}}
	if docs, err = Read(host.Do, dmi.Identity{}); err != nil || len(docs.User) != 2 || string(docs.User[1].Data) != strings.TrimSpace(user) {
		t.Errorf("got %v %v", docs, err)
	}
	text, err := ReadOVF("x", []byte(`<Environment><PropertySection><Property key="user-data" value="#cloud-config"/><Property key="local-hostname" value="a"/><Property key="hostname" value="b"/></PropertySection></Environment>`))
	if err != nil || string(text.User[0].Data) != "#cloud-config" || string(text.Meta[0].Data) != "local-hostname: \"a\"\n" {
		t.Errorf("got %v %v", text, err)
	}
	for name, text := range map[string]string{"empty": "", "other root": "<a/>", "cut short": string(recorded(t)[:300])} {
		if _, err := ReadOVF("CD", []byte(text)); err == nil || !strings.HasPrefix(err.Error(), "CD: ovf-env.xml: ") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestHere(t *testing.T) {
	for _, id := range []dmi.Identity{{ProductName: "VMware7,1"}, {ProductName: "VMware Virtual Platform"}, {SystemVendor: "VMware, Inc.", ProductName: "x"}} {
		if !Here(id) {
			t.Errorf("%+v: want it known", id)
		}
	}
	if Here(dmi.Identity{SystemVendor: "QEMU"}) || Here(dmi.Identity{}) {
		t.Error("want others not taken for it")
	}
}

func FuzzReadOVF(f *testing.F) {
	f.Add(recorded(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, err := ReadOVF("CD", data)
		if err != nil && !docs.Empty() {
			t.Error("documents beside an error")
		}
		for _, d := range docs.Meta { // whatever the properties hold, it is one map of texts
			if cfg, problems := userdata.Load(userdata.Documents{Meta: []userdata.Document{d}}); userdata.Refused(problems) {
				t.Errorf("%q: got %+v %v", d.Data, cfg, problems)
			}
		}
	})
}

func FuzzNetwork(f *testing.F) {
	f.Add([]byte(about))
	f.Add([]byte("network: eA==\nnetwork.encoding: b64\n"))
	f.Fuzz(func(t *testing.T, data []byte) { _, _ = networkOf(data) })
}
