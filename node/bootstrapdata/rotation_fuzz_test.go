package bootstrapdata

import "testing"

func FuzzParseRotation(f *testing.F) {
	f.Add(`{"from":"/bootstrap/a","to":"/bootstrap/b","expires":"2030-01-01T00:00:00Z","old":"x","new":"y"}`)
	f.Add("{}")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRotation(text)
		if err != nil {
			return
		}
		if r.From == r.To || r.Expires.IsZero() {
			t.Fatalf("took %q", text)
		}
		if _, err := r.New("x"); err == nil {
			t.Fatal("a foreign rotation was opened")
		}
	})
}
