package userdata

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Reader walks the YAML of one document and gathers what is wrong with it.
// netconfig reads its documents with it too, so that all mistakes look alike.
type Reader struct {
	Source   string
	Problems []Problem
}

// Pair is one entry of a mapping.
type Pair struct {
	Name  string
	Key   *yaml.Node
	Value *yaml.Node
}

// Bad notes a mistake that forbids to use the document.
func (r *Reader) Bad(n *yaml.Node, key, format string, args ...any) {
	r.add(n, key, true, format, args...)
}

// Note tells of something that is passed over.
func (r *Reader) Note(n *yaml.Node, key, format string, args ...any) {
	r.add(n, key, false, format, args...)
}

func (r *Reader) add(n *yaml.Node, key string, fatal bool, format string, args ...any) {
	p := Problem{Source: r.Source, Key: key, Text: fmt.Sprintf(format, args...), Fatal: fatal}
	if n != nil {
		p.Line = n.Line
	}
	r.Problems = append(r.Problems, p)
}

// Parse returns the one value of a YAML document, nil for an empty one or one
// that cannot be read (which is noted).
func (r *Reader) Parse(data []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		line, text := syntaxError(data, err)
		r.Bad(&yaml.Node{Line: line}, "", "not valid YAML: %s; correct the indentation, quoting or brackets there", text)
		return nil
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		r.Bad(&more, "", "a second YAML document follows; keep one document, without a --- line inside")
		return nil
	}
	if len(doc.Content) == 0 || isNull(doc.Content[0]) {
		return nil
	}
	return doc.Content[0]
}

// Pairs returns the entries of a mapping; key names it in mistakes.
func (r *Reader) Pairs(n *yaml.Node, key string) []Pair {
	n = deref(n)
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		r.Bad(n, key, "is %s where a map of keys is wanted", kindName(n))
		return nil
	}
	var out []Pair
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], deref(n.Content[i+1])
		if k.Kind != yaml.ScalarNode {
			r.Bad(k, key, "holds a key that is %s; keys are plain words", kindName(k))
			continue
		}
		if k.Tag == "!!merge" {
			r.Bad(k, key, "uses a YAML merge key (<<), which is not understood here; write the keys out")
			continue
		}
		if first, ok := lines[k.Value]; ok {
			r.Bad(k, Join(key, k.Value), "is given twice, first in line %d; keep one", first)
			continue
		}
		lines[k.Value] = k.Line
		out = append(out, Pair{Name: k.Value, Key: k, Value: v})
	}
	return out
}

// Items returns the entries of a list.
func (r *Reader) Items(n *yaml.Node, key string) []*yaml.Node {
	n = deref(n)
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		r.Bad(n, key, "is %s where a list is wanted; begin its lines with \"- \"", kindName(n))
		return nil
	}
	out := make([]*yaml.Node, 0, len(n.Content))
	for _, c := range n.Content {
		out = append(out, deref(c))
	}
	return out
}

// String returns a scalar as it is written.
func (r *Reader) String(n *yaml.Node, key string) (string, bool) {
	n = deref(n)
	if n.Kind != yaml.ScalarNode || isNull(n) {
		r.Bad(n, key, "is %s where a text is wanted", kindName(n))
		return "", false
	}
	return n.Value, true
}

// Strings returns a list of texts.
func (r *Reader) Strings(n *yaml.Node, key string) []string {
	var out []string
	for i, c := range r.Items(n, key) {
		if s, ok := r.String(c, fmt.Sprintf("%s[%d]", key, i)); ok {
			out = append(out, s)
		}
	}
	return out
}

// Bool returns a truth value; cloud-init reads YAML 1.1, where yes and no are
// such values too.
func (r *Reader) Bool(n *yaml.Node, key string) (value, ok bool) {
	n = deref(n)
	if n.Kind == yaml.ScalarNode {
		switch strings.ToLower(n.Value) {
		case "true", "yes", "on":
			return true, true
		case "false", "no", "off":
			return false, true
		}
	}
	r.Bad(n, key, "is %s where true or false is wanted", kindName(n))
	return false, false
}

// Int returns a whole number within bounds.
func (r *Reader) Int(n *yaml.Node, key string, low, high int) (int, bool) {
	n = deref(n)
	v, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || v < low || v > high {
		r.Bad(n, key, "is not a whole number from %d to %d", low, high)
		return 0, false
	}
	return v, true
}

// Unknown notes a key that its section does not have.
func (r *Reader) Unknown(p Pair, section string, known []string) {
	text := "is not a key of " + section
	if section == "" {
		text = "is not a key here"
	}
	if near := nearest(p.Name, known); near != "" {
		text += fmt.Sprintf("; did you mean %s?", near)
	} else {
		text += "; remove it, or use one of " + strings.Join(known, ", ")
	}
	r.Bad(p.Key, Join(section, p.Name), "%s", text)
}

// Join makes the dotted path of a key.
func Join(section, name string) string {
	if section == "" {
		return name
	}
	return section + "." + name
}

func deref(n *yaml.Node) *yaml.Node {
	// An alias cannot point at an alias, so that one step is enough.
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

func kindName(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a map"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "empty"
	case n.Tag == "!!int" || n.Tag == "!!float":
		return "a number"
	case n.Tag == "!!bool":
		return "true or false"
	}
	return "a text"
}

// nearest finds the known word that a slip of at most two letters away.
func nearest(word string, known []string) string {
	best, at := "", 3
	for _, k := range known {
		if d := distance(word, k, at); d < at && d < len(k)-1 {
			best, at = k, d
		}
	}
	return best
}

// distance is Levenshtein's, given up above the bound.
func distance(a, b string, bound int) int {
	if len(a)-len(b) >= bound || len(b)-len(a) >= bound {
		return bound
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
