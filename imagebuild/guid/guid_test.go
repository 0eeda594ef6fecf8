package guid

import (
	"regexp"
	"testing"
)

func TestDerive(t *testing.T) {
	seen := map[GUID]string{}
	for _, c := range []struct{ seed, name string }{{"", ""}, {"a", ""}, {"", "a"}, {"bc", "a"}, {"c", "ab"}} {
		g := Derive([]byte(c.seed), c.name)
		if was, ok := seen[g]; ok {
			t.Errorf("%q and %q/%q share %s", was, c.seed, c.name, g)
		}
		seen[g] = c.seed + "/" + c.name
		if g != Derive([]byte(c.seed), c.name) {
			t.Errorf("%q/%q: two results", c.seed, c.name)
		}
		form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
		if !form.MatchString(g.String()) {
			t.Errorf("%s: not the text of a version 8 GUID", g)
		}
	}
}

// A golden value: the GUIDs of released images must not change unnoticed.
func TestStable(t *testing.T) {
	g := Derive([]byte("seed"), "KEELSON-ESP")
	if want := "d15ed6b6-9032-827e-8eb3-916217b755a3"; g.String() != want {
		t.Errorf("Derive: got %s, want %s", g, want)
	}
	if got, want := (GUID{1, 2, 3, 4}).Serial(), uint32(0x04030201); got != want {
		t.Errorf("Serial: got %#x, want %#x", got, want)
	}
}
