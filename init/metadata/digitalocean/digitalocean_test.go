package digitalocean

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"keelson/init/dmi"
	"keelson/init/metadata/metadatatest"
	"keelson/init/netconfig"
)

var update = flag.Bool("update", false, "write the golden files")

// testdata/metadata/v1.json has the fields of the sample in the API's
// documentation ("Retrieve all metadata as JSON"), which cloud-init's tests use
// too (tests/unittests/sources/test_digitalocean.py).
func TestFetch(t *testing.T) {
	s := &metadatatest.Server{Folder: "testdata"}
	docs, err := Fetch(t.Context(), s.Start(t, "169.254.169.254:80"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ got, want string }{
		{string(docs.User[0].Data), "#cloud-config\nhostname: from-digitalocean\n"},
		{string(docs.Vendor[0].Data), "#cloud-config\ntimezone: America/New_York\n"},
		{string(docs.Meta[0].Data), "instance-id: \"2756294\"\nlocal-hostname: \"node-1\"\n"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	const golden = "testdata/network-config.golden.yaml"
	if *update {
		if err := os.WriteFile(golden, docs.Network[0].Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || string(want) != string(docs.Network[0].Data) {
		t.Errorf("network-config: got\n%s\nwant\n%s%v", docs.Network[0].Data, want, err)
	}
	if plan, problems := netconfig.Load(docs.Network); len(problems) != 0 || len(plan.Links) != 2 {
		t.Errorf("network-config: got %+v %v", plan, problems)
	}
}

// The number of a droplet is a text in some answers.
func TestNumberAsText(t *testing.T) {
	for id, want := range map[string]string{`"22532410"`: "22532410", `22532410`: "22532410"} {
		s := &metadatatest.Server{Before: func(w http.ResponseWriter, _ *http.Request) bool {
			fmt.Fprintf(w, `{"droplet_id":%s,"hostname":"node-1"}`, id)
			return true
		}}
		docs, err := Fetch(t.Context(), s.Start(t, "169.254.169.254:80"))
		if err != nil || string(docs.Meta[0].Data) != "instance-id: \""+want+"\"\nlocal-hostname: \"node-1\"\n" {
			t.Errorf("%s: got %+v, %v", id, docs.Meta, err)
		}
	}
}

// Every droplet has an address that may be chosen, on its first card alone.
func TestNetwork(t *testing.T) {
	seen := map[string]bool{}
	for n := range 500 {
		docs := Network(dmi.Identity{ProductSerial: fmt.Sprint(n)})
		plan, problems := netconfig.Load(docs)
		if len(problems) != 0 || len(plan.Links) != 1 || len(plan.Links[0].Addresses) != 1 || plan.Links[0].DHCP4 {
			t.Fatalf("got %+v %v", plan, problems)
		}
		p := plan.Links[0].Addresses[0]
		if b := p.Addr().As4(); p.Bits() != 16 || b[0] != 169 || b[1] != 254 || b[2] < 1 || b[2] > 168 {
			t.Errorf("%d: got %s", n, p)
		}
		seen[p.String()] = true
	}
	if len(seen) < 400 {
		t.Errorf("500 droplets have %d addresses", len(seen))
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{`: "v1.json",
		`{"interfaces":{"public":[{"mac":"x"}]}}`: "interfaces.public[0].mac",
		`{"interfaces":{"private":[{"mac":"04:01:2a:0f:2a:01","ipv4":{"ip_address":"1.2.3.4","netmask":"x"}}]}}`:               "interfaces.private[0]",
		`{"interfaces":{"public":[{"mac":"04:01:2a:0f:2a:01","ipv6":{"ip_address":"2001:db8::1","cidr":200,"gateway":"x"}}]}}`: "/200 is no address",
	} {
		var d droplet
		err := json.Unmarshal([]byte(text), &d)
		if err == nil {
			_, err = render(d)
		} else {
			continue // Fetch's own wrapping is the same for both
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

func TestHere(t *testing.T) {
	if !Here(dmi.Identity{SystemVendor: "DigitalOcean"}) || Here(dmi.Identity{}) {
		t.Error("want the vendor to tell")
	}
}

// What is rendered is always what netconfig can read.
func FuzzRender(f *testing.F) {
	recorded, err := os.ReadFile("testdata/metadata/v1.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(recorded)
	f.Fuzz(func(t *testing.T, data []byte) {
		var d droplet
		if json.Unmarshal(data, &d) != nil {
			return
		}
		text, err := render(d)
		if err != nil || text == nil {
			return
		}
		for i, line := range strings.Split(string(text), "\n") {
			if i > 1 && line != "" && !strings.HasPrefix(line, "  ") {
				t.Fatalf("line %d escapes: %q", i+1, line)
			}
		}
	})
}
