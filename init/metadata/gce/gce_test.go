package gce

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"keelson/init/dmi"
	"keelson/init/metadata"
	"keelson/init/metadata/metadatatest"
)

const address = "169.254.169.254:80"

// guard wants the header and the name, and answers with the header.
func guard(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("Metadata-Flavor") != "Google" || r.Host != host {
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	w.Header().Set("Metadata-Flavor", "Google")
	return false
}

// The files of testdata lie under the paths of the service, as the table
// "Predefined metadata keys" has them; a request without Metadata-Flavor gets
// 403 ("View and query VM metadata"). The two attributes are cloud-init's
// (doc/rtd/reference/datasources/gce.rst).
func TestFetch(t *testing.T) {
	s := &metadatatest.Server{Folder: "testdata", Before: guard}
	docs, err := Fetch(t.Context(), s.Start(t, address))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(docs.User[0].Data), "#cloud-config\nhostname: from-gce\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := string(docs.Meta[0].Data), "instance-id: \"5341283743910\"\nlocal-hostname: \"node-1.c.project-7.internal\"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEncodings(t *testing.T) {
	for name, c := range map[string]struct{ user, encoding, want, err string }{
		"plain":   {"#cloud-config\n", "", "#cloud-config\n", ""},
		"none":    {"", "", "", ""},
		"broken":  {"***", "base64", "", "user-data is not base64"},
		"unknown": {"x", "rot13", "", `user-data-encoding: "rot13" is not known`},
	} {
		t.Run(name, func(t *testing.T) {
			s := &metadatatest.Server{Before: func(w http.ResponseWriter, r *http.Request) bool {
				if guard(w, r) {
					return true
				}
				value := map[string]string{"user-data": c.user, "user-data-encoding": c.encoding}[r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]]
				if value == "" {
					return false
				}
				w.Write([]byte(value))
				return true
			}}
			docs, err := Fetch(t.Context(), s.Start(t, address))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !errors.Is(err, metadata.ErrFinal) {
					t.Errorf("got %v, want %s", err, c.err)
				}
				return
			}
			got := ""
			for _, d := range docs.User {
				got += string(d.Data)
			}
			if err != nil || got != c.want {
				t.Errorf("got %q %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestSomebodyElseAnswers(t *testing.T) {
	s := &metadatatest.Server{Folder: "testdata"}
	if _, err := Fetch(t.Context(), s.Start(t, address)); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("got %v", err)
	}
}

func TestHere(t *testing.T) {
	if !Here(dmi.Identity{ProductName: "Google Compute Engine"}) || !Here(dmi.Identity{ProductSerial: "GoogleCloud-1"}) || Here(dmi.Identity{ProductName: "Google"}) {
		t.Error("want the product or the serial number to tell")
	}
}
