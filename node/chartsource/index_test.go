package chartsource

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	repo "helm.sh/helm/v4/pkg/repo/v1"
	"sigs.k8s.io/yaml"
)

// Which version is picked is Helm's choice, of an index that Helm has made.
func TestPicksAsHelm(t *testing.T) {
	content := index(t, "https://x.example", "", "1.0.0", "1.10.0", "1.9.0", "2.0.0-beta.1", "0.3.0+build.2", "3.0.0-alpha")
	file := filepath.Join(t.TempDir(), "index.yaml")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	helm, err := repo.LoadIndexFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, chart := range []string{"web", "we", "web-more", "w", ""} {
		for _, constraint := range []string{"", "1.0.0", "^1.0", "~1.9", ">=1.0.0 <1.10.0", "2.0.0-beta.1", ">0.0.0-0", "0.3.0+build.2", "1.x", "9", "!"} {
			want, helmErr := helm.Get(chart, constraint)
			got, err := find(content, chart, constraint)
			if (err != nil) != (helmErr != nil) {
				t.Errorf("%s %q: got %v, Helm has %v", chart, constraint, err, helmErr)
				continue
			}
			if err == nil && (got.Version != want.Version || got.URLs[0] != want.URLs[0]) {
				t.Errorf("%s %q: got %+v, Helm has %s %s", chart, constraint, got, want.Version, want.URLs)
			}
		}
	}
}

// An index that no line of which can be told apart is read whole, if it is short.
func TestIndexInOtherForms(t *testing.T) {
	want := entry{Version: "1.0.0", URLs: []string{"a.tgz"}}
	for name, text := range map[string]string{
		"JSON":      `{"entries": {"web": [{"version": "1.0.0", "urls": ["a.tgz"]}]}}`,
		"quoted":    "entries:\n  \"web\":\n  - version: 1.0.0\n    urls: [a.tgz]\n",
		"indented":  "entries:\n    web:\n        - version: 1.0.0\n          urls:\n            - a.tgz\n    other: []\n",
		"commented": "# made\nentries:\n\n  # of\n  web:\n  # by\n  - version: 1.0.0\n    urls: [a.tgz]\ngenerated: x\n",
		"not first": "apiVersion: v1\nentries:\n  a:\n  - version: 3.0.0\n    urls: [b]\n  web:\n  - version: 1.0.0\n    urls: [a.tgz]\n",
		"CRLF":      "entries:\r\n  web:\r\n  - version: 1.0.0\r\n    urls: [a.tgz]\r\n",
	} {
		got, err := find([]byte(text), "web", "")
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	long := "entries:\n  web: [{version: 1.0.0, urls: [a.tgz]}]\n#" + strings.Repeat(" ", maxWhole)
	if _, err := find([]byte(long), "web", ""); err == nil {
		t.Error("a long index was read whole")
	}
	for name, text := range map[string]string{"no address": "entries:\n  web:\n  - version: 1.0.0\n", "no version": "entries:\n  web:\n  - urls: [a]\n", "empty": ""} {
		if got, err := find([]byte(text), "web", ""); err == nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

// Lines that are taken for a chart's entries say what the whole index does.
func FuzzIndex(f *testing.F) {
	f.Add(index(f, "x", "", "1.0.0", "1.1.0"), "web")
	f.Add([]byte("entries:\n  web:\n  - version: 1.0.0\n    urls: [a]\n"), "web")
	f.Add([]byte("entries:\n  a: |\n    web:\n     - version: 1.0.0\n"), "web")
	f.Add([]byte("entries: {web: []}\nweb:\n- version: x\n"), "web")
	f.Fuzz(func(t *testing.T, content []byte, chart string) {
		got, err := find(content, chart, "")
		if err != nil {
			return
		}
		if len(got.URLs) == 0 {
			t.Errorf("got %+v", got)
		}
		var whole struct {
			Entries map[string][]entry `json:"entries"`
		}
		if yaml.Unmarshal(content, &whole) != nil {
			return // what stands elsewhere in the file does not matter
		}
		for _, e := range whole.Entries[chart] {
			if reflect.DeepEqual(e, got) {
				return
			}
		}
		t.Errorf("got %+v, and the index has %+v", got, whole.Entries[chart])
	})
}
