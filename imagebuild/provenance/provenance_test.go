package provenance

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keelson/imagebuild/internal/testkey"
)

func build() Build {
	return Build{
		Subjects: []Resource{
			{Name: "keelson-amd64.raw", Digest: map[string]string{"sha256": strings.Repeat("ab", 32)}},
			{Name: "keelson-amd64.cdx.json", Digest: map[string]string{"sha256": strings.Repeat("cd", 32)}},
		},
		Parameters: map[string]string{"arch": "amd64", "definition": "configs/images/cloud.yaml"},
		Inputs:     []Resource{{Name: "source", Digest: map[string]string{"gitCommit": "c0ffee"}}, {URI: "pkg:deb/debian/x@1", Digest: map[string]string{"sha256": "00"}}},
		Toolchain:  "go1.26.8",
	}
}

func TestRender(t *testing.T) {
	text, err := Render(build())
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got["_type"] != "https://in-toto.io/Statement/v1" || got["predicateType"] != "https://slsa.dev/provenance/v1" {
		t.Errorf("types: %v, %v", got["_type"], got["predicateType"])
	}
	subjects := got["subject"].([]any)
	if len(subjects) != 2 || subjects[0].(map[string]any)["name"] != "keelson-amd64.cdx.json" {
		t.Errorf("subjects: %v, want two in order", subjects)
	}
	p := got["predicate"].(map[string]any)
	definition := p["buildDefinition"].(map[string]any)
	if definition["buildType"] == "" || definition["externalParameters"].(map[string]any)["arch"] != "amd64" || len(definition["resolvedDependencies"].([]any)) != 2 {
		t.Errorf("build definition: %v", definition)
	}
	builder := p["runDetails"].(map[string]any)["builder"].(map[string]any)
	if builder["id"] == "" || builder["version"].(map[string]any)["go"] != "go1.26.8" {
		t.Errorf("builder: %v", builder)
	}
	other := build()
	slices.Reverse(other.Subjects)
	slices.Reverse(other.Inputs)
	if again, err := Render(other); err != nil || !bytes.Equal(text, again) {
		t.Errorf("the order of what is given shows: %v", err)
	}
	other.Subjects[0].Digest = nil
	if _, err := Render(other); err == nil || !strings.Contains(err.Error(), "has no SHA-256") {
		t.Errorf("a subject without a hash: got %v", err)
	}
}

func TestSignAndOpen(t *testing.T) {
	p, stranger := testkey.New(t, "signer"), testkey.New(t, "stranger")
	text, err := Render(build())
	if err != nil {
		t.Fatal(err)
	}
	signed, err := Sign(text, p)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Sign(text, p); err != nil || !bytes.Equal(signed, again) {
		t.Errorf("two signatures of the same differ: %v", err)
	}
	if got, err := Open(signed, &p.Key.PublicKey); err != nil || !bytes.Equal(got, text) {
		t.Errorf("Open: got %v", err)
	}
	for _, c := range []struct {
		name string
		text []byte
		key  int
		want string
	}{
		{"a stranger's key", signed, 1, "none of 1 signatures"},
		{"another payload", bytes.Replace(signed, []byte(`"payload": "`), []byte(`"payload": "AAAA`), 1), 0, "none of 1 signatures"},
		{"another type", bytes.Replace(signed, []byte("in-toto+json"), []byte("other+json"), 1), 0, "want application/vnd.in-toto+json"},
		{"no envelope", []byte("hello"), 0, "read envelope"},
		{"no signature", []byte(`{"payloadType":"application/vnd.in-toto+json","payload":"AAAA"}`), 0, "none of 0"},
	} {
		key := &p.Key.PublicKey
		if c.key == 1 {
			key = &stranger.Key.PublicKey
		}
		if _, err := Open(c.text, key); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

// OpenSSL checks the signature over what the protocol says is signed.
func TestOpenSSL(t *testing.T) {
	tool, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("SKIPPED: openssl is absent")
	}
	p := testkey.New(t, "signer")
	signed, err := Sign([]byte("{}"), p)
	if err != nil {
		t.Fatal(err)
	}
	var e envelope
	if err := json.Unmarshal(signed, &e); err != nil {
		t.Fatal(err)
	}
	sig, err := base64.StdEncoding.DecodeString(e.Signatures[0].Sig)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&p.Key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key := testkey.File(t, dir, "key", "PUBLIC KEY", public)
	for name, b := range map[string][]byte{"sig": sig, "data": []byte("DSSEv1 28 application/vnd.in-toto+json 2 {}")} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(tool, "dgst", "-sha256", "-verify", key, "-signature", filepath.Join(dir, "sig"), filepath.Join(dir, "data")).CombinedOutput()
	if err != nil {
		t.Errorf("openssl dgst: %v\n%s", err, out)
	}
}

func TestModuleHashes(t *testing.T) {
	got := ModuleHashes([]byte("example.test/a v1.0.0 h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nexample.test/a v1.0.0/go.mod h1:AAAA\nbroken\nexample.test/b v1 h1:short\n"))
	if len(got) != 1 || got["example.test/a@v1.0.0"] != strings.Repeat("00", 32) {
		t.Errorf("got %v", got)
	}
}

func FuzzOpen(f *testing.F) {
	p := testkey.New(f, "signer")
	signed, err := Sign([]byte("{}"), p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := Open(b, &p.Key.PublicKey); err == nil && string(got) != "{}" {
			t.Fatalf("opened what was never signed: %q", got)
		}
	})
}
