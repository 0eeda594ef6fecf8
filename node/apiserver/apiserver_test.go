package apiserver

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apiserverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	psa "k8s.io/pod-security-admission/admission/api/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write golden files anew")

func TestGolden(t *testing.T) {
	for name, got := range map[string][]byte{
		"authentication.yaml": Authentication(), "admission.yaml": Admission(), "cloud-config.yaml": CloudConfig(),
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
