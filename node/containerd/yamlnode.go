package containerd

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parser walks YAML nodes and gathers what is wrong with file, line and key.
type parser struct {
	file     string
	problems []error
}

func (p *parser) fail(node *yaml.Node, at, message string) {
	if at == "" {
		p.problems = append(p.problems, fmt.Errorf("%s: line %d: %s", p.file, node.Line, message))
		return
	}
	p.problems = append(p.problems, fmt.Errorf("%s: line %d: %s: %s", p.file, node.Line, at, message))
}

// each calls do for every entry of a mapping. An empty value is an empty mapping.
func (p *parser) each(node *yaml.Node, at string, do func(key, at string, value *yaml.Node)) {
	node = follow(node)
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return
	}
	if node.Kind != yaml.MappingNode {
		p.fail(node, at, "is not a mapping; write key: value lines under it")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		name := key.Value
		if at != "" {
			name = at + "." + name
		}
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag == "!!merge":
			p.fail(key, at, "has a key that is not plain text")
		case seen[key.Value]:
			p.fail(key, name, "is here for the second time")
		default:
			seen[key.Value] = true
			do(key.Value, name, node.Content[i+1])
		}
	}
}

// mapping is each for a mapping whose keys are known.
func (p *parser) mapping(node *yaml.Node, at string, known map[string]func(at string, value *yaml.Node)) {
	p.each(node, at, func(key, at string, value *yaml.Node) {
		do, ok := known[key]
		if !ok {
			p.fail(value, at, "is unknown here; known are "+strings.Join(slices.Sorted(maps.Keys(known)), ", "))
			return
		}
		do(at, value)
	})
}

func (p *parser) text(node *yaml.Node, at string) string {
	node = follow(node)
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
		p.fail(node, at, "is not a text")
		return ""
	}
	if strings.ContainsAny(node.Value, "\x00\r\n") {
		p.fail(node, at, "has a line break in it")
		return ""
	}
	return node.Value
}

// follow returns what an alias stands for. The YAML library has refused aliases that lead to themselves.
func follow(node *yaml.Node) *yaml.Node {
	for node.Kind == yaml.AliasNode && node.Alias != nil {
		node = node.Alias
	}
	return node
}
