package addons

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBrokenDocuments: the place must lead to the line of the file, whichever document it is in.
func TestBrokenDocuments(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"second document", configMap("a") + "---\nkind: x\n\ta: b\n", "document 2 (line 7): yaml: line 8: "},
		{"third document", configMap("a", "b") + "---\na: b\nc: d: e\n", "document 3 (line 13): yaml: line 14: "},
		{"key twice", configMap("a") + "---\napiVersion: v1\nkind: A\nkind: B\n", "line 9: "},
		{"a text", "hello\n", "document 1 (line 1): is not a mapping; an object has apiVersion, kind and metadata"},
		{"no apiVersion", "kind: ConfigMap\nmetadata: {name: x}\n", "document 1 (line 1): has no apiVersion or kind"},
		{"item of a list without a name", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap}\n", "document 1 (line 1): ConfigMap has no metadata.name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := load([]byte(c.content)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
	// All of a file's mistakes are told at once.
	_, err := load([]byte("a: [\n---\nb: [\n---\n" + configMap("x")))
	if err == nil || strings.Count(err.Error(), "document ") != 2 {
		t.Errorf("two broken documents: got %v", err)
	}
}

// TestBrokenFileIsMended: nothing is pruned while a file is broken, and all is once it is whole again.
func TestBrokenFileIsMended(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", configMap("one", "two"))
	c := h.controller()
	c.pass(t.Context())
	h.write("a.yaml", configMap("three")+"---\na: [\n")
	c.pass(t.Context())
	h.want(cm+"one", cm+"three", cm+"two")
	if !c.pass(t.Context()) {
		t.Error("a broken file is tried for ever")
	}
	h.write("a.yaml", configMap("three"))
	c.pass(t.Context())
	h.want(cm + "three")
}

// TestOversizedFile is refused by its size, before it is read.
func TestOversizedFile(t *testing.T) {
	h := newHarness(t)
	h.write("a.yaml", "")
	if err := os.Truncate(filepath.Join(h.dir, "a.yaml"), maxSize+1); err != nil {
		t.Fatal(err)
	}
	h.write("b.yaml", configMap("two"))
	if h.once() {
		t.Error("an oversized file was taken for applied")
	}
	h.want(cm + "two")
	if _, err := read(filepath.Join(h.dir, "a.yaml")); err == nil || !strings.Contains(err.Error(), "the most is 33554432") {
		t.Errorf("got %v", err)
	}
}
