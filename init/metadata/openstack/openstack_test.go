package openstack

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/init/dmi"
	"keelson/init/metadata"
	"keelson/init/metadata/metadatatest"
)

// The files of testdata follow nova's documentation ("Metadata service", and
// doc/api_schemas/network_data.json for the network), reduced to what is read and
// to some fields that are passed over.
func TestFetch(t *testing.T) {
	s := &metadatatest.Server{Folder: "testdata"}
	docs, err := Fetch(t.Context(), s.Start(t, "169.254.169.254:80"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ got, want string }{
		{string(docs.User[0].Data), "#cloud-config\nhostname: from-openstack\n"},
		{string(docs.Vendor[0].Data), "#cloud-config\ntimezone: Europe/Paris\n"},
		{string(docs.Meta[0].Data), "instance-id: \"83679162-1378-4288-a2d4-70e13ec132aa\"\nlocal-hostname: \"node-1.novalocal\"\n"},
		{docs.Network[0].Source, "OpenStack metadata: network_data.json"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

// The same documents from a volume.
func TestRead(t *testing.T) {
	get := func(name string) ([]byte, error) {
		b, err := os.ReadFile(filepath.Join("testdata", Folder, name))
		if errors.Is(err, os.ErrNotExist) {
			return nil, metadata.ErrNotFound
		}
		return b, err
	}
	docs, err := Read("ConfigDrive /dev/vdb", get)
	if err != nil || docs.User[0].Source != "ConfigDrive /dev/vdb: user-data" {
		t.Errorf("got %v %v", docs, err)
	}
	for name, c := range map[string]struct {
		files map[string]string
		err   string
		user  int
	}{
		"nothing":             {nil, "not found", 0},
		"name without host":   {map[string]string{"meta_data.json": `{"uuid":"1","name":"n"}`}, "", 0},
		"broken meta-data":    {map[string]string{"meta_data.json": `{"uuid":1}`}, "meta_data.json", 0},
		"broken vendor-data":  {map[string]string{"meta_data.json": `{}`, "vendor_data.json": `{`}, "vendor_data.json", 0},
		"vendor-data a list":  {map[string]string{"meta_data.json": `{}`, "vendor_data.json": `[1]`}, "", 0},
		"vendor-data no text": {map[string]string{"meta_data.json": `{}`, "vendor_data.json": `{"cloud-init":{}}`}, "cloud-init: is not a text", 0},
		"user-data":           {map[string]string{"meta_data.json": `{}`, "user_data": "x"}, "", 1},
	} {
		docs, err := Read("s", func(name string) ([]byte, error) {
			if text, ok := c.files[name]; ok {
				return []byte(text), nil
			}
			return nil, metadata.ErrNotFound
		})
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || len(docs.User) != c.user {
			t.Errorf("%s: got %v %v, want %q", name, docs, err, c.err)
		}
	}
}

func TestVendorText(t *testing.T) {
	for text, want := range map[string]string{`"a"`: "a", `{"cloud-init":"b"}`: "b", `{"cloud-init":null}`: "", `{}`: "", ``: ""} {
		if got, err := vendorData([]byte(text)); err != nil || string(got) != want {
			t.Errorf("%s: got %q %v, want %q", text, got, err, want)
		}
	}
}

func TestHere(t *testing.T) {
	for _, id := range []dmi.Identity{{ProductName: "OpenStack Nova"}, {ProductName: "OpenStack Compute"}, {ChassisTag: "OpenTelekomCloud"}} {
		if !Here(id) {
			t.Errorf("%+v: want it known", id)
		}
	}
	if Here(dmi.Identity{ProductName: "KVM"}) {
		t.Error("want KVM alone not taken for it")
	}
}

func FuzzVendorData(f *testing.F) {
	f.Add([]byte(`{"cloud-init":"#cloud-config"}`))
	f.Fuzz(func(t *testing.T, data []byte) { _, _ = vendorData(data) })
}
