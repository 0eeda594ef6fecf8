package hetzner

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"keelson/init/dmi"
	"keelson/init/metadata/metadatatest"
	"keelson/init/netconfig"
)

const address = "169.254.169.254:80"

// about answers what cannot be a file: metadata is a document and a folder.
func about(text string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/hetzner/v1/metadata":
			w.Write([]byte(text))
		case "/hetzner/v1/metadata/network-config":
			http.ServeFile(w, r, "testdata/hetzner/v1/network-config")
		default:
			return false
		}
		return true
	}
}

// The files of testdata have the fields that cloud-init's tests have
// (tests/unittests/sources/test_hetzner.py): metadata is YAML and a folder of its
// parts.
func TestFetch(t *testing.T) {
	recorded, err := os.ReadFile("testdata/hetzner/v1/about")
	if err != nil {
		t.Fatal(err)
	}
	s := &metadatatest.Server{Folder: "testdata", Before: about(string(recorded))}
	docs, err := Fetch(t.Context(), s.Start(t, address))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ got, want string }{
		{string(docs.User[0].Data), "#cloud-config\nhostname: from-hetzner\n"},
		{string(docs.Vendor[0].Data), "#cloud-config\ntimezone: Europe/Berlin\n"},
		{string(docs.Meta[0].Data), "instance-id: \"42\"\nlocal-hostname: \"node-1\"\n"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	plan, problems := netconfig.Load(docs.Network)
	if len(problems) != 0 || len(plan.Links) != 1 || !plan.Links[0].DHCP4 || len(plan.Links[0].Addresses) != 1 {
		t.Errorf("network: got %+v %v", plan, problems)
	}
}

// What is base64 as a whole is taken for what it holds.
func TestPacked(t *testing.T) {
	for sent, want := range map[string]string{"I2Nsb3VkLWNvbmZpZwo=\n": "#cloud-config\n", "#cloud-config\n": "#cloud-config\n"} {
		meta := about("instance-id: 1\n")
		s := &metadatatest.Server{Folder: "testdata", Before: func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/hetzner/v1/userdata" {
				w.Write([]byte(sent))
				return true
			}
			return meta(w, r)
		}}
		docs, err := Fetch(t.Context(), s.Start(t, address))
		if err != nil || len(docs.User) != 1 || string(docs.User[0].Data) != want {
			t.Errorf("%q: got %v %v, want %q", sent, docs.User, err, want)
		}
	}
}

func TestBrokenMetadata(t *testing.T) {
	s := &metadatatest.Server{Before: about("hostname: [")}
	if _, err := Fetch(t.Context(), s.Start(t, address)); err == nil || !strings.Contains(err.Error(), "not what is documented") {
		t.Errorf("got %v", err)
	}
}

func TestWithoutUserData(t *testing.T) {
	s := &metadatatest.Server{Before: about("instance-id: 1\n")}
	if docs, err := Fetch(t.Context(), s.Start(t, address)); err != nil || len(docs.User) != 0 {
		t.Errorf("got %v %v", docs, err)
	}
}

func TestHere(t *testing.T) {
	if !Here(dmi.Identity{SystemVendor: "Hetzner"}) || Here(dmi.Identity{}) {
		t.Error("want the vendor to tell")
	}
}
