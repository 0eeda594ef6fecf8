package encryption

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestConfigIsRKE2s(t *testing.T) {
	for _, name := range []string{"aescbc", "secretbox"} {
		got, err := Config(name)
		if err != nil {
			t.Fatal(err)
		}
		form := regexp.MustCompile(`^\{"kind":"EncryptionConfiguration","apiVersion":"apiserver.config.k8s.io/v1","resources":\[\{"resources":\["secrets"\],"providers":\[\{"` + name + `":\{"keys":\[\{"name":"` + name + `key","secret":"([^"]+)"\}\]\}\},\{"identity":\{\}\}\]\}\]\}$`)
		m := form.FindSubmatch(got)
		if m == nil {
			t.Fatalf("%s: got %s", name, got)
		}
		if raw, err := base64.StdEncoding.DecodeString(string(m[1])); err != nil || len(raw) != 32 {
			t.Errorf("%s: key of %d bytes, %v", name, len(raw), err)
		}
		again, _ := Config(name)
		if string(again) == string(got) {
			t.Errorf("%s: the same key twice", name)
		}
	}
	if _, err := Config("kms"); err == nil {
		t.Error("kms: no error")
	}
}

func TestEnsure(t *testing.T) {
	dir := t.TempDir()
	names := func(paths []string) string {
		var out []string
		for _, p := range paths {
			out = append(out, filepath.Base(p))
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	read := func(name string) string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, "cred", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	step := func(name, provider, want string) {
		t.Helper()
		got, err := Ensure(dir, provider)
		if err != nil || names(got) != want {
			t.Errorf("%s: wrote %q, %v; want %q", name, names(got), err, want)
		}
	}
	step("first", "aescbc", "encryption-config.json encryption-state.json ipsec.psk")
	config := read("encryption-config.json")
	if got, want := read("encryption-state.json"), fmt.Sprintf("start-%x", sha256.Sum256([]byte(config))); got != want {
		t.Errorf("state: got %s, want %s", got, want)
	}
	if !regexp.MustCompile(`^[0-9a-f]{96}\n$`).MatchString(read("ipsec.psk")) {
		t.Errorf("psk: got %q", read("ipsec.psk"))
	}
	for _, name := range []string{"encryption-config.json", "encryption-state.json", "ipsec.psk"} {
		if info, err := os.Stat(filepath.Join(dir, "cred", name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
	step("again", "aescbc", "")
	if err := os.Remove(filepath.Join(dir, "cred", "encryption-state.json")); err != nil {
		t.Fatal(err)
	}
	step("cut between the two", "aescbc", "encryption-state.json")
	if err := os.WriteFile(filepath.Join(dir, "cred", "encryption-state.json"), []byte("reencrypt_finished-x"), 0o600); err != nil {
		t.Fatal(err)
	}
	step("later stage", "aescbc", "")
	if read("encryption-config.json") != config {
		t.Error("the key was replaced")
	}
}

func TestEnsureRefuses(t *testing.T) {
	aescbc, err := Config("aescbc")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, config, want string }{
		{"other provider", string(aescbc), "this cluster encrypts with aescbc"},
		{"broken", "{", "not an EncryptionConfiguration"},
		{"empty", "", "not an EncryptionConfiguration"},
		{"no key", `{"resources":[{"resources":["secrets"],"providers":[{"identity":{}}]}]}`, "neither"},
	} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "cred"), 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "cred", "encryption-config.json")
		if err := os.WriteFile(path, []byte(c.config), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Ensure(dir, "secretbox")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if got, _ := os.ReadFile(path); string(got) != c.config {
			t.Errorf("%s: the file was changed", c.name)
		}
	}
}
