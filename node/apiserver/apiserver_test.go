package apiserver

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	apiserverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	psa "k8s.io/pod-security-admission/admission/api/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write golden files anew")

func TestGolden(t *testing.T) {
	key := bytes.Repeat([]byte{7}, KeySize)
	aescbc, state, err := Encryption(AESCBC, key)
	if err != nil {
		t.Fatal(err)
	}
	secretbox, _, err := Encryption(SecretBox, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{
		"authentication.yaml": Authentication(), "admission.yaml": Admission(), "cloud-config.yaml": CloudConfig(),
		"encryption-aescbc.json": aescbc, "encryption-secretbox.json": secretbox, "encryption-state": state,
	} {
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

func TestAuthenticationOpensHealthOnly(t *testing.T) {
	var c apiserverv1.AuthenticationConfiguration
	if err := yaml.UnmarshalStrict(Authentication(), &c); err != nil {
		t.Fatal(err)
	}
	if c.Anonymous == nil || !c.Anonymous.Enabled || len(c.JWT) != 0 {
		t.Fatalf("got %+v", c)
	}
	var paths []string
	for _, condition := range c.Anonymous.Conditions {
		paths = append(paths, condition.Path)
	}
	// Without any condition every path would be open.
	if got, want := strings.Join(paths, " "), "/livez /readyz"; got != want {
		t.Errorf("open paths %q, want %q", got, want)
	}
}

func TestAdmissionIsPodSecurity(t *testing.T) {
	var c apiserverv1.AdmissionConfiguration
	if err := yaml.UnmarshalStrict(Admission(), &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Plugins) != 1 || c.Plugins[0].Name != "PodSecurity" {
		t.Fatalf("got plugins %+v", c.Plugins)
	}
	var p psa.PodSecurityConfiguration
	if err := yaml.UnmarshalStrict(c.Plugins[0].Configuration.Raw, &p); err != nil {
		t.Fatal(err)
	}
	if p.Defaults.Enforce != "privileged" {
		t.Errorf("enforces %q, want privileged", p.Defaults.Enforce)
	}
}

func TestEncryption(t *testing.T) {
	config, state, err := Encryption(AESCBC, bytes.Repeat([]byte{1}, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	var c apiserverv1.EncryptionConfiguration
	if err := yaml.UnmarshalStrict(config, &c); err != nil {
		t.Fatal(err)
	}
	providers := c.Resources[0].Providers
	if len(providers) != 2 || providers[0].AESCBC == nil || providers[0].AESCBC.Keys[0].Name != "aescbckey" || providers[1].Identity == nil {
		t.Errorf("got providers %+v", providers)
	}
	if !regexp.MustCompile(`^start-[0-9a-f]{64}$`).Match(state) {
		t.Errorf("got state %q", state)
	}
	for _, bad := range []struct {
		provider string
		size     int
	}{{"aesgcm", KeySize}, {AESCBC, 16}, {SecretBox, 0}} {
		if _, _, err := Encryption(bad.provider, make([]byte, bad.size)); err == nil {
			t.Errorf("%v: want an error", bad)
		}
	}
}
