package azure

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"keelson/init/dmi"
	"keelson/init/metadata/metadatatest"
)

// The files of testdata: instance is the sample answer of the metadata
// service's documentation, with what is not read left out;
// goalstate.xml and health.xml have the elements of WALinuxAgent's tests
// (tests/data/wire) and of cloud-init's (tests/unittests/sources/
// test_azure_helper.py), which has the failure as well; ovf-env.xml those of
// test_azure.py.
func recorded(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFetch(t *testing.T) {
	s := &metadatatest.Server{Folder: "testdata", Before: func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Metadata") == "true" && r.URL.Query().Get("api-version") != "" {
			return false
		}
		w.WriteHeader(http.StatusBadRequest)
		return true
	}}
	docs, err := Fetch(t.Context(), s.Start(t, "169.254.169.254:80"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(docs.User[0].Data), "#cloud-config\nhostname: from-azure\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := string(docs.Meta[0].Data), "instance-id: \"02aab8a4-74ef-476e-8182-f6d2ba4166a6\"\nlocal-hostname: \"node-1\"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOVF(t *testing.T) {
	docs, err := ReadOVF("Azure CD /dev/sr0", recorded(t, OVF))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(docs.User[0].Data), "#cloud-config\nhostname: from-cd\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := string(docs.Meta[0].Data), "local-hostname: \"node-1\"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for name, text := range map[string]string{
		"cut short":   string(recorded(t, OVF)[:400]),
		"other root":  "<a></a>",
		"not base64":  strings.Replace(string(recorded(t, OVF)), "I2Ns", "****", 1),
		"not XML":     "#cloud-config\n",
		"wrong start": "",
	} {
		if _, err := ReadOVF("CD", []byte(text)); err == nil || !strings.HasPrefix(err.Error(), "CD: ovf-env.xml: ") {
			t.Errorf("%s: got %v, want an error", name, err)
		}
	}
}

func TestReport(t *testing.T) {
	goal := string(recorded(t, "goalstate.xml"))
	for name, c := range map[string]struct{ goal, failure, err, want string }{
		"ready":     {goal, "", "", "health.xml"},
		"failed":    {goal, "user-data: line 4: rke2.a<b>: is not a known key & " + strings.Repeat("é", 400), "", "health-failed.xml"},
		"of others": {"<GoalState><Incarnation>1</Incarnation></GoalState>", "", "names no container", ""},
		"not XML":   {"busy", "", "goal state", ""},
	} {
		t.Run(name, func(t *testing.T) {
			posted := ""
			s := &metadatatest.Server{Before: func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case r.Header.Get("X-Ms-Version") != "2012-11-30" || r.Header.Get("X-Ms-Agent-Name") == "":
					w.WriteHeader(http.StatusBadRequest)
				case r.Method == "POST" && r.URL.RawQuery == "comp=health" && strings.HasPrefix(r.Header.Get("Content-Type"), "text/xml"):
					posted = metadatatest.Body(t, r)
				case r.URL.RawQuery == "comp=goalstate":
					w.Write([]byte(c.goal))
				default:
					return false
				}
				return true
			}}
			err := Report(t.Context(), s.Start(t, "168.63.129.16:80"), c.failure)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || posted != "" {
					t.Errorf("got %v and %q, want %s", err, posted, c.err)
				}
				return
			}
			if want := strings.TrimSpace(string(recorded(t, c.want))); err != nil || posted != want {
				t.Errorf("got %v\n%s\nwant\n%s", err, posted, want)
			}
		})
	}
}

func TestHere(t *testing.T) {
	if !Here(dmi.Identity{ChassisTag: "7783-7084-3265-9085-8269-3286-77"}) || Here(dmi.Identity{SystemVendor: "Microsoft Corporation"}) {
		t.Error("want the asset tag to tell: Hyper-V elsewhere has the same vendor")
	}
}

func FuzzReadOVF(f *testing.F) {
	f.Add(recorded(f, OVF))
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, err := ReadOVF("CD", data)
		if err != nil && len(docs.User) != 0 {
			t.Error("documents beside an error")
		}
	})
}
