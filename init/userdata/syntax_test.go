package userdata

import (
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A person looks at the line that is named; it must be the one to correct.
func TestLineOfTheMistake(t *testing.T) {
	var filler string
	for i := range 200 {
		filler += fmt.Sprintf("k%d: {b: [c]}\n", i)
	}
	tests := []struct {
		name, text string
		line       int
	}{
		{"first line", "a: {]\n", 1},
		{"last line", "a: 1\nb: {]\n", 2},
		{"last line without its end", "a: 1\nb: {]", 2},
		{"in the middle", filler + "x: {]\n" + filler, 201},
		{"value after a list", "a:\n- 1\nb 2\nc: 3\n", 3},
		{"list in a map", "a: 1\n- b\nc: 2\n", 2},
		{"less indentation", "a:\n    b: 1\n  c: 2\n", 3},
		{"tab", "a:\n  b: 1\n\tc: 2\n", 3},
		{"colon in a value", filler + "a: b: c\n" + filler, 201},
		{"percent", "a: 1\nb: %x\n", 2},
		{"at sign", "a: @x\n", 1},
		{"windows line ends", "a: 1\r\nb: {]\r\nc: 2\r\n", 2},
		{"unknown anchor", "a: 1\nb: *c\nd: 2\n", 2},
		{"control character", "a: 1\nb: \x01\n", 2},
		{"not utf-8", "a: 1\nb: \xff\n", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := Reader{Source: "s"}
			if n := r.Parse([]byte(tt.text)); n != nil || len(r.Problems) != 1 {
				t.Fatalf("got %v and %v, want one problem", n, r.Problems)
			}
			if p := r.Problems[0]; p.Line != tt.line || !p.Fatal {
				t.Errorf("got %v, want line %d", p, tt.line)
			}
		})
	}
}

func TestParse(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"comments", "# a\n# b\n", ""},
		{"begin mark", "---\n", ""},
		{"begin and end", "---\na: 1\n...\n", ""},
		{"second document", "a: 1\n---\nb: 2\n", "FATAL s: line 2: a second YAML document follows; keep one document, without a --- line inside"},
		{"second document broken", "a: 1\n---\n{]\n", "FATAL s: a second YAML document follows; keep one document, without a --- line inside"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := Reader{Source: "s"}
			r.Parse([]byte(tt.text))
			if got := render(r.Problems); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestScalars(t *testing.T) {
	node := func(text string) *yaml.Node {
		var n yaml.Node
		if err := yaml.Unmarshal([]byte(text), &n); err != nil {
			t.Fatal(err)
		}
		return n.Content[0]
	}
	tests := []struct{ name, text, asBool, asInt, asString string }{
		{"true", "true", "true", "is not a whole number from 1 to 9", `"true"`},
		{"Yes", "Yes", "true", "is not a whole number from 1 to 9", `"Yes"`},
		{"OFF", "OFF", "false", "is not a whole number from 1 to 9", `"OFF"`},
		{"quoted no", "'no'", "false", "is not a whole number from 1 to 9", `"no"`},
		{"low", "1", "is a number where true or false is wanted", "1", `"1"`},
		{"high", "9", "is a number where true or false is wanted", "9", `"9"`},
		{"too low", "0", "is a number where true or false is wanted", "is not a whole number from 1 to 9", `"0"`},
		{"too high", "10", "is a number where true or false is wanted", "is not a whole number from 1 to 9", `"10"`},
		{"quoted number", "'5'", "is a text where true or false is wanted", "5", `"5"`},
		{"fraction", "5.0", "is a number where true or false is wanted", "is not a whole number from 1 to 9", `"5.0"`},
		{"huge", "99999999999999999999", "is a number where true or false is wanted", "is not a whole number from 1 to 9", `"99999999999999999999"`},
		{"text", "a", "is a text where true or false is wanted", "is not a whole number from 1 to 9", `"a"`},
		{"null", "~", "is empty where true or false is wanted", "is not a whole number from 1 to 9", "is empty where a text is wanted"},
		{"map", "{a: b}", "is a map where true or false is wanted", "is not a whole number from 1 to 9", "is a map where a text is wanted"},
		{"list", "[1]", "is a list where true or false is wanted", "is not a whole number from 1 to 9", "is a list where a text is wanted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, n := Reader{Source: "s"}, node(tt.text)
			check := func(kind string, value any, ok bool, want string) {
				t.Helper()
				got := fmt.Sprintf("%v", value)
				if s, isText := value.(string); isText {
					got = fmt.Sprintf("%q", s)
				}
				if !ok {
					if len(r.Problems) != 1 || r.Problems[0].Line != 1 || r.Problems[0].Key != "k" || !r.Problems[0].Fatal {
						t.Fatalf("%s: got %+v, want one fatal problem of k in line 1", kind, r.Problems)
					}
					got, r.Problems = r.Problems[0].Text, nil
				}
				if got != want {
					t.Errorf("%s: got %s, want %s", kind, got, want)
				}
			}
			b, ok := r.Bool(n, "k")
			check("bool", b, ok, tt.asBool)
			i, ok := r.Int(n, "k", 1, 9)
			check("int", i, ok, tt.asInt)
			s, ok := r.String(n, "k")
			check("string", s, ok, tt.asString)
		})
	}
}

func TestNearest(t *testing.T) {
	known := []string{"servers", "pools", "ntp", "mtu"}
	for word, want := range map[string]string{
		"server": "servers", "srevers": "servers", "Servers": "servers", "servversss": "", "pool": "pools", "poolz": "pools",
		"ntp": "ntp", "nt": "ntp", "mtuu": "mtu", "xyz": "", "": "", "m": "",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	tests := []struct {
		a, b  string
		bound int
		want  int
	}{
		{"", "", 3, 0}, {"a", "", 3, 1}, {"", "ab", 3, 2}, {"kitten", "sitting", 9, 3}, {"kitten", "sitten", 3, 1},
		{"abc", "abcdef", 3, 3}, {"ab", "ba", 3, 2}, {"flaw", "lawn", 3, 2},
	}
	for _, tt := range tests {
		if got := distance(tt.a, tt.b, tt.bound); got != tt.want {
			t.Errorf("%q %q: got %d, want %d", tt.a, tt.b, got, tt.want)
		}
		if got := distance(tt.b, tt.a, tt.bound); got != tt.want {
			t.Errorf("%q %q: got %d, want %d", tt.b, tt.a, got, tt.want)
		}
	}
}

// FuzzSyntaxError looks for mistakes whose line lies outside the document.
func FuzzSyntaxError(f *testing.F) {
	f.Add([]byte("a: {\nb: ]\n"))
	f.Add([]byte("a: 'x\n\n"))
	f.Add([]byte("a:\n\t- b"))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			return
		}
		r := Reader{Source: "s"}
		r.Parse(data)
		for _, p := range r.Problems {
			if lines := strings.Count(string(data), "\n") + 2; p.Line < 0 || p.Line > lines {
				t.Errorf("line %d of %d", p.Line, lines)
			}
		}
	})
}
