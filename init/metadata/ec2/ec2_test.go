package ec2

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"keelson/init/dmi"
	"keelson/init/metadata"
	"keelson/init/metadata/metadatatest"
)

// guard refuses what has no token, as an instance with tokens required does.
func guard(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == "PUT" && r.URL.Path == "/latest/api/token" && r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") != "" {
		w.Write([]byte("AQAEAAAAA=="))
		return true
	}
	if r.Header.Get("X-aws-ec2-metadata-token") != "AQAEAAAAA==" {
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	return false
}

// The files of testdata lie under the paths of the service, with bodies as the
// guide shows them ("Instance metadata categories"); the answers to a missing
// token and to missing user-data, 401 and 404, are those of "Use IMDSv2".
func TestFetch(t *testing.T) {
	for name, address := range map[string]string{"IPv4": "169.254.169.254:80", "IPv6 alone": "[fd00:ec2::254]:80"} {
		t.Run(name, func(t *testing.T) {
			s := &metadatatest.Server{Folder: "testdata", Before: guard}
			docs, err := Fetch(t.Context(), s.Start(t, address))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := string(docs.User[0].Data), "#cloud-config\nhostname: from-ec2\n"; got != want || docs.User[0].Source != "EC2 metadata: user-data" {
				t.Errorf("got %q of %s", got, docs.User[0].Source)
			}
			want := "instance-id: \"i-0123456789abcdef0\"\nlocal-hostname: \"ip-10-0-0-7.eu-central-1.compute.internal\"\n"
			if got := string(docs.Meta[0].Data); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestWithoutUserData(t *testing.T) {
	s := &metadatatest.Server{Folder: "testdata", Before: func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/latest/user-data" {
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		return guard(w, r)
	}}
	docs, err := Fetch(t.Context(), s.Start(t, "169.254.169.254:80"))
	if err != nil || len(docs.User) != 0 || len(docs.Meta) != 1 {
		t.Errorf("got %v %v, want meta-data alone", docs, err)
	}
}

func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		final  bool
		want   string
	}{
		"switched off": {http.StatusForbidden, true, "status 403"},
		"busy":         {http.StatusServiceUnavailable, false, "status 503"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &metadatatest.Server{Before: func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(c.status); return true }}
			_, err := Fetch(t.Context(), s.Start(t, "169.254.169.254:80", "[fd00:ec2::254]:80"))
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, metadata.ErrFinal) != c.final {
				t.Errorf("got %v", err)
			}
			if asked := s.Asked(); c.final && len(asked) != 1 {
				t.Errorf("asked %q, want no second question after a refusal", asked)
			}
		})
	}
}

func TestHere(t *testing.T) {
	for name, c := range map[string]struct {
		id   dmi.Identity
		want bool
	}{
		"nitro":   {dmi.Identity{SystemVendor: "Amazon EC2"}, true},
		"xen":     {dmi.Identity{SystemVendor: "Xen", BIOSVersion: "4.11.amazon", ProductUUID: "EC2ABCDE-0000"}, true},
		"own xen": {dmi.Identity{SystemVendor: "Xen", BIOSVersion: "4.11", ProductUUID: "ec2abcde-0000"}, false},
		"nothing": {dmi.Identity{}, false},
	} {
		if got := Here(c.id); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
