package apt

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestSources(t *testing.T) {
	for _, c := range []struct {
		name, file, text string
		list, deb822     string
	}{
		{"one line", "sources.list", "# x\ndeb http://mirror.test/debian bookworm main\n", "deb http://mirror.test/debian bookworm main\n", ""},
		{"pocket", "sources.list", "deb http://m.test/s bookworm-security main contrib\n", "deb http://m.test/s bookworm-security main contrib\n", ""},
		{"other vendor", "sources.list", "deb http://m.test/d bookworm main\ndeb http://v.test/ cloud-bookworm main\n", "deb http://m.test/d bookworm main\n", ""},
		{"source packages", "sources.list", "deb-src http://m.test/d bookworm main\ndeb http://m.test/d bookworm main\n", "deb http://m.test/d bookworm main\n", ""},
		{"options", "sources.list", "deb [ signed-by=/k.gpg trusted=yes allow-insecure=yes ] http://m.test/d bookworm main\n", "deb [signed-by=/k.gpg] http://m.test/d bookworm main\n", ""},
		{"only trusted", "sources.list.d/a.list", "deb [trusted=yes] http://m.test/d bookworm main\n", "deb http://m.test/d bookworm main\n", ""},
		{"broken options", "sources.list", "deb [ http://m.test/d bookworm main\ndeb http://m.test/d bookworm main\n", "deb http://m.test/d bookworm main\n", ""},
		{"deb822", "sources.list.d/d.sources", "Types: deb deb-src\n# c\nURIs: http://m.test/d\nSuites: bookworm bookworm-updates\nComponents: main\nTrusted: yes\nSigned-By: /k.gpg\n",
			"", "Types: deb\nURIs: http://m.test/d\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n\n"},
		{"deb822 embedded key", "sources.list.d/d.sources", "Types: deb\nURIs: http://m.test/d\nSuites: bookworm\nSigned-By:\n -----BEGIN\n .\n abc\n",
			"", "Types: deb\nURIs: http://m.test/d\nSuites: bookworm\nSigned-By:\n -----BEGIN\n .\n abc\n\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			etc := t.TempDir()
			file := filepath.Join(etc, c.file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			list, deb822, err := Sources(etc, "bookworm")
			if err != nil {
				t.Fatal(err)
			}
			if string(list) != c.list || string(deb822) != c.deb822 {
				t.Errorf("Sources:\ngot  %q\n     %q\nwant %q\n     %q", list, deb822, c.list, c.deb822)
			}
		})
	}
}

func TestSourcesRefuses(t *testing.T) {
	for _, c := range []struct{ name, text string }{
		{"nothing", ""},
		{"other suite", "deb http://m.test/d trixie main\n"},
		{"prefix of a name", "deb http://m.test/d bookwormish main\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			etc := t.TempDir()
			if err := os.WriteFile(filepath.Join(etc, "sources.list"), []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, _, err := Sources(etc, "bookworm"); err == nil || !strings.Contains(err.Error(), "bookworm") {
				t.Errorf("Sources: got %v, want an error that names the suite", err)
			}
		})
	}
	t.Run("components", func(t *testing.T) {
		for _, c := range []struct{ file, text, want string }{
			{"sources.list", "deb http://m.test/d bookworm main contrib\ndeb http://v.test/d bookworm stable\n",
				"deb http://m.test/d bookworm main contrib non-free-firmware\ndeb http://v.test/d bookworm stable\n"},
			{"sources.list", "deb http://m.test/d bookworm main non-free-firmware\n", "deb http://m.test/d bookworm main non-free-firmware\n"},
			{"sources.list.d/d.sources", "Types: deb\nSuites: bookworm\nComponents: main\nURIs: http://m.test/d\n",
				"Types: deb\nSuites: bookworm\nComponents: main non-free-firmware\nURIs: http://m.test/d\n\n"},
		} {
			etc := t.TempDir()
			file := filepath.Join(etc, c.file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			list, deb822, err := Sources(etc, "bookworm", "non-free-firmware")
			if got := string(list) + string(deb822); err != nil || got != c.want {
				t.Errorf("Sources of %q: got %q, %v, want %q", c.text, got, err, c.want)
			}
		}
	})
	t.Run("disabled", func(t *testing.T) {
		if got := stanzasOf("Enabled: no\nTypes: deb\nSuites: bookworm\n", "bookworm", nil); got != "" {
			t.Errorf("disabled stanza: got %q, want none", got)
		}
	})
}

const sum = "b9f76b5271a7ac373fd5e7e1b5b826a71ddd702b42a0d104955ecb1acfffc94b"

func TestLoadIndex(t *testing.T) {
	text := "Package: a\nVersion: 1:2-3\nDepends: b (= 1), c | d:any\nDescription: x\n more: text\nSize: 12\nSHA256: " + sum + "\n\n" +
		"Package: local\nVersion: 1\n\n"
	got, err := LoadIndex(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 {
		t.Fatalf("LoadIndex: got %d packages, want the one that has a hash", len(got))
	}
	p := got[0]
	if p.Name != "a" || p.Version != "1:2-3" || p.Size != 12 || p.SHA256 != sum || strings.Join(p.Depends, " ") != "b c d" {
		t.Errorf("LoadIndex: got %+v", p)
	}
	for _, bad := range []string{"Package a\n", "Package: a\nVersion: 1\nSize: x\nSHA256: " + sum, "Package: a\nVersion: 1\nSHA256: abc", "Version: 1\nSHA256: " + sum} {
		if _, err := LoadIndex(bad); err == nil {
			t.Errorf("LoadIndex(%q): got no error", bad)
		}
	}
}

func FuzzLoadIndex(f *testing.F) {
	f.Add("Package: a\nVersion: 1\nDepends: b (= 1), c | d:any\nSize: 12\nSHA256: " + sum + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		packages, err := LoadIndex(text)
		if err != nil {
			return
		}
		for _, p := range packages {
			if p.Name == "" || p.Version == "" || len(p.SHA256) != 64 {
				t.Errorf("LoadIndex(%q): accepted %+v", text, p)
			}
		}
	})
}

// TestAptReadsConf asks the real apt what it makes of the configuration.
func TestAptReadsConf(t *testing.T) {
	if _, err := exec.LookPath("apt-config"); err != nil {
		t.Skip("apt is not installed")
	}
	etc := t.TempDir()
	if err := os.WriteFile(filepath.Join(etc, "sources.list"), []byte("deb http://m.test/d bookworm main\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "state")
	client, err := New(Config{Dir: dir, Etc: etc, Suite: "bookworm", Arch: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	out, err := client.run(context.Background(), "", "apt-config", "dump")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`Dir::State "` + dir + `";`, `Dir::Etc::sourcelist "/dev/null";`, `APT::Get::AllowUnauthenticated "false";`,
		`Acquire::AllowInsecureRepositories "false";`, `Dir::Cache::archives "` + dir + `/archives";`, `APT::Architecture "amd64";`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("apt-config dump: want %s", want)
		}
	}
	if strings.Contains(out, "APT::Update::Post-Invoke::") {
		t.Error("apt-config dump: the host's hooks are still there")
	}
}
