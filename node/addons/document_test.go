package addons

import (
	"slices"
	"strings"
	"testing"
)

func TestLoad(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		want    []string // "line kind name"
		problem string
	}{
		"empty":            {"", nil, ""},
		"comments":         {"# nothing\n---\n# here\n", nil, ""},
		"two":              {configMap("a", "b"), []string{"document 1 (line 1): ConfigMap a", "document 2 (line 7): ConfigMap b"}, ""},
		"leading line":     {"---\n" + configMap("a"), []string{"document 1 (line 2): ConfigMap a"}, ""},
		"list":             {"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: x}\n", []string{"document 1 (line 1): ConfigMap x"}, ""},
		"dashes in a text": {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  a: |\n    ---\n    b\n", []string{"document 1 (line 1): ConfigMap x"}, ""},
		"broken":           {configMap("a") + "---\n\tx\n", []string{"document 1 (line 1): ConfigMap a"}, "document 2 (line 7)"},
		"key twice":        {"apiVersion: v1\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n", nil, "document 1 (line 1)"},
		"no mapping":       {"- a\n", nil, "not a mapping"},
		"no kind":          {"apiVersion: v1\nmetadata: {name: x}\n", nil, "document 1"},
		"no name":          {"apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: x}\n", nil, "metadata.name"},
	} {
		t.Run(name, func(t *testing.T) {
			documents, err := load([]byte(c.content))
			var got []string
			for _, d := range documents {
				got = append(got, d.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if (err == nil) != (c.problem == "") || err != nil && !strings.Contains(err.Error(), c.problem) {
				t.Errorf("got error %v, want one with %q", err, c.problem)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(configMap("a", "b")))
	f.Add([]byte("kind: List\napiVersion: v1\nitems: [{}]"))
	f.Fuzz(func(t *testing.T, content []byte) {
		documents, _ := load(content)
		for _, d := range documents {
			if d.object.GetName() == "" || d.object.GetKind() == "" || d.line < 1 {
				t.Errorf("got %v", d)
			}
		}
	})
}
