package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// value is one scalar of a file, as it was written.
type value struct {
	text string
	null bool
	at   position
}

// entry is one key of a file with its values.
type entry struct {
	key    string
	append bool // the key was written with a trailing +
	list   bool // the value was written as a list
	values []value
	at     position
}

// parse reads one file into its entries. The grammar is the one of k3s (pkg/configfilearg): a mapping of flag names
// to a scalar or a list of scalars. Unlike k3s it allows each key once.
func parse(file string, data []byte) ([]entry, Problems) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, Problems{syntaxProblem(file, err)}
	}
	var more yaml.Node
	if err := dec.Decode(&more); err == nil {
		return nil, Problems{{File: file, Line: more.Line, Message: "is a second YAML document; keep one document in a file"}}
	} else if !errors.Is(err, io.EOF) {
		return nil, Problems{syntaxProblem(file, err)}
	}
	return entries(file, &doc)
}

// syntaxProblem turns the parser's "yaml: line 3: did not find ..." into a Problem with that line.
func syntaxProblem(file string, err error) Problem {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	p := Problem{File: file, Message: "is not valid YAML: " + message}
	if n, _ := fmt.Sscanf(message, "line %d:", &p.Line); n == 1 {
		_, rest, _ := strings.Cut(message, ": ")
		p.Message = "is not valid YAML: " + rest
	}
	return p
}

// entries reads a mapping node. Problems do not end the reading: all of a file's mistakes are told at once.
func entries(file string, node *yaml.Node) ([]entry, Problems) {
	node = resolve(node)
	if node == nil || node.Kind == 0 || isNull(node) {
		return nil, nil
	}
	if node.Kind != yaml.MappingNode {
		return nil, Problems{{File: file, Line: node.Line, Message: "is " + kindName(node) + "; write key: value lines"}}
	}
	var all []entry
	var problems Problems
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, val := node.Content[i], resolve(node.Content[i+1])
		e := entry{key: name.Value, at: position{file, name.Line}}
		fail := func(message string) {
			problems = append(problems, Problem{File: file, Line: e.at.line, Key: e.key, Message: message})
		}
		if name.Kind != yaml.ScalarNode {
			e.key = ""
			fail("a key is not plain text")
			continue
		}
		if name.Tag == "!!merge" {
			fail("YAML merge keys are not supported; write the keys out")
			continue
		}
		e.key, e.append = strings.CutSuffix(e.key, "+")
		if slices.ContainsFunc(all, func(other entry) bool { return other.key == e.key && other.append == e.append }) {
			fail("is here for the second time in this file; keep one")
			continue
		}
		var mistake string
		if e.values, mistake = values(file, val); mistake != "" {
			fail(mistake)
			continue
		}
		e.list = val.Kind == yaml.SequenceNode
		all = append(all, e)
	}
	return all, problems
}

// values reads the scalar or the list of scalars at node, or says what is wrong with it.
func values(file string, node *yaml.Node) (all []value, mistake string) {
	switch {
	case node == nil:
		return nil, "refers to a YAML anchor that refers to itself; write the value out"
	case node.Kind == yaml.ScalarNode:
		return []value{scalar(file, node)}, ""
	case node.Kind != yaml.SequenceNode:
		return nil, "is " + kindName(node) + "; give a value or a list of values"
	}
	for _, item := range node.Content {
		if item = resolve(item); item == nil || item.Kind != yaml.ScalarNode {
			return nil, "has an item that is not plain text; quote it"
		}
		all = append(all, scalar(file, item))
	}
	return all, ""
}

func scalar(file string, node *yaml.Node) value {
	v := value{text: node.Value, null: isNull(node), at: position{file, node.Line}}
	if v.null {
		v.text = ""
	}
	return v
}

// resolve follows aliases and document nodes; nil where an alias leads to itself.
func resolve(node *yaml.Node) *yaml.Node {
	for range 16 {
		switch {
		case node == nil:
			return nil
		case node.Kind == yaml.DocumentNode && len(node.Content) > 0:
			node = node.Content[0]
		case node.Kind == yaml.AliasNode:
			node = node.Alias
		default:
			return node
		}
	}
	return nil
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

func kindName(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}

// merge joins the entries of files in their order: a later entry replaces an earlier one, and one with + is
// appended to it.
func merge(files ...[]entry) []entry {
	var out []entry
	for _, file := range files {
		for _, e := range file {
			i := slices.IndexFunc(out, func(have entry) bool { return have.key == e.key })
			switch {
			case i < 0:
				out = append(out, e)
			case e.append:
				out[i].values = slices.Concat(out[i].values, e.values)
				out[i].list = true
				out[i].at = e.at
			default:
				out[i] = e
			}
		}
	}
	return out
}
