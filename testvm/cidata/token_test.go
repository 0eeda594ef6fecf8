package cidata

import (
	"testing"
)

func TestToken(t *testing.T) {
	for _, c := range []struct{ name, userData, vendorData, want string }{
		{"in the user-data", "#cloud-config\nrke2: {token: abc}\n", "", "abc"},
		{"as RKE2 on another system has it", "#cloud-config\nwrite_files:\n- path: /etc/rancher/rke2/config.yaml\n  content: |\n    token: def\n", "", "def"},
		{"in the vendor-data", "", "#cloud-config\nrke2: {token: ghi}\n", "ghi"},
		{"user-data wins", "#cloud-config\nrke2: {token: abc}\n", "#cloud-config\nrke2: {token: ghi}\n", "abc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := Volume{UserData: []byte(c.userData)}
			if c.vendorData != "" {
				in.VendorData = []byte(c.vendorData)
			}
			out, token, err := in.WithToken("")
			if err != nil || token != c.want || string(out.VendorData) != c.vendorData {
				t.Errorf("token: got %q, %v, want %q and the volume as it was", token, err, c.want)
			}
		})
	}
	for _, doc := range []string{"", "#cloud-config\nrke2: {role: server}\n", "#!/bin/sh\n", "rke2: [", "#cloud-config\nrke2: {token: {a: b}}\n"} {
		out, token, err := Volume{UserData: []byte(doc)}.WithToken("")
		if err != nil || len(token) != 32 || TokenOf(out.VendorData) != token {
			t.Errorf("%q: got token %q, %v, want a random one in the vendor-data", doc, token, err)
		}
		if _, again, err := (Volume{}).WithToken(token); err != nil || again != token {
			t.Errorf("another seed: got token %q, %v, want the one before", again, err)
		}
	}
	if _, _, err := (Volume{VendorData: []byte("#cloud-config\n")}).WithToken(""); err == nil {
		t.Error("vendor-data without a token: got no error")
	}
}

func FuzzTokenOf(f *testing.F) {
	f.Add([]byte("#cloud-config\nrke2: {token: abc}\n"))
	f.Fuzz(func(t *testing.T, doc []byte) { TokenOf(doc) })
}
