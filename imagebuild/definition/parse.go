package definition

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Parsed is one file, before its base is under it.
type Parsed struct {
	Definition
	Base        string // file of the definition that it is based on
	PackedSet   bool   // it says something about packed modules
	FirmwareSet bool   // it says something about firmware
}

// parser collects what is wrong, so that all of it is told at once.
type parser struct {
	file  string
	wrong []error
}

func (p *parser) say(n *yaml.Node, key, format string, args ...any) {
	p.wrong = append(p.wrong, fmt.Errorf("%s:%d: %s: %s", p.file, n.Line, key, fmt.Sprintf(format, args...)))
}

// Parse reads the text of one file. Paths in it are relative to its folder.
func Parse(file string, text []byte) (Parsed, error) {
	out := Parsed{Definition: Definition{File: file}}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return out, fmt.Errorf("%s: %w", file, err)
	}
	p := &parser{file: file}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return out, fmt.Errorf("%s: want keys and values, such as \"base: cloud\"", file)
	}
	p.each(doc.Content[0], "", map[string]func(string, *yaml.Node){
		"base": func(key string, n *yaml.Node) {
			if name := p.word(key, n); name != "" {
				// A bare name is one of the definitions beside the stock ones.
				if !strings.ContainsAny(name, "/.") {
					name = filepath.Join(stock, name+".yaml")
					out.Base = name
					return
				}
				out.Base = p.path(name)
			}
		},
		"name": func(key string, n *yaml.Node) {
			out.Name = p.word(key, n)
			if !regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`).MatchString(out.Name) {
				p.say(n, key, "%q: want lower case letters, digits and -", out.Name)
			}
		},
		"kernel": func(key string, n *yaml.Node) { out.Kernel = p.oneOf(key, n, []string{Cloud, Generic}) },
		"modules": func(key string, n *yaml.Node) {
			p.each(n, key, map[string]func(string, *yaml.Node){
				"boot": func(key string, n *yaml.Node) { out.Boot = p.paths(key, n) },
				"root": func(key string, n *yaml.Node) { out.Root = p.paths(key, n) },
				"packed": func(key string, n *yaml.Node) {
					out.PackedSet = true
					out.Packed = p.yes(key, n)
				},
			})
		},
		"firmware": func(key string, n *yaml.Node) {
			out.FirmwareSet = true
			out.Firmware = p.yes(key, n)
		},
		"overlays": func(key string, n *yaml.Node) { out.Overlays = p.paths(key, n) },
		"archives": func(key string, n *yaml.Node) {
			out.Archives = p.paths(key, n)
			for _, name := range out.Archives {
				if filepath.Ext(name) != ".tar" {
					p.say(n, key, "%s: want archives of images whose names end in .tar", name)
				}
			}
		},
		"arguments": func(key string, n *yaml.Node) {
			out.Arguments = p.words(key, n)
			for _, a := range out.Arguments {
				switch name, _, _ := strings.Cut(a, "="); {
				case strings.ContainsAny(a, " \t\n\"'"):
					p.say(n, key, "%q: want one argument an entry, without blanks and quotes", a)
				case strings.HasPrefix(name, "keelson."):
					p.say(n, key, "%s: arguments that begin with keelson. are the builder's", a)
				case name == "console":
					p.say(n, key, "%s: consoles have a key of their own", a)
				}
			}
		},
		"consoles": func(key string, n *yaml.Node) {
			if n.Kind != yaml.MappingNode {
				out.Consoles = Consoles{"": p.consoles(key, n)}
				return
			}
			out.Consoles = Consoles{}
			lists := map[string]func(string, *yaml.Node){}
			for _, arch := range []string{"amd64", "arm64"} {
				lists[arch] = func(key string, n *yaml.Node) { out.Consoles[arch] = p.consoles(key, n) }
			}
			p.each(n, key, lists)
		},
		"user-data": func(key string, n *yaml.Node) {
			if name := p.word(key, n); name != "" {
				out.UserData = p.path(name)
			}
		},
		"artefacts": func(key string, n *yaml.Node) {
			if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
				p.say(n, key, "want a list of some of %s", strings.Join(Artefacts(), ", "))
				return
			}
			for _, one := range n.Content {
				out.Artefacts = append(out.Artefacts, p.oneOf(key, one, Artefacts()))
			}
		},
	})
	return out, errors.Join(p.wrong...)
}

// yes reads true or false.
func (p *parser) yes(key string, n *yaml.Node) bool {
	var yes bool
	if err := n.Decode(&yes); err != nil || n.Tag != "!!bool" {
		p.say(n, key, "want true or false")
	}
	return yes
}

// stock is where the definitions of the checkout are.
const stock = "configs/images"

// each calls the function of every key, and tells keys that have none, are
// there twice or are no plain words.
func (p *parser) each(n *yaml.Node, parent string, keys map[string]func(string, *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		p.say(n, parent, "want keys and values")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key := k.Value
		if parent != "" {
			key = parent + "." + key
		}
		f, ok := keys[k.Value]
		switch {
		case !ok || k.Kind != yaml.ScalarNode:
			known := make([]string, 0, len(keys))
			for name := range keys {
				known = append(known, name)
			}
			slices.Sort(known)
			p.say(k, key, "is not known: want one of %s", strings.Join(known, ", "))
		case seen[k.Value]:
			p.say(k, key, "is there twice")
		case v.Kind == yaml.AliasNode:
			p.say(v, key, "aliases are not wanted here")
		default:
			seen[k.Value] = true
			f(key, v)
		}
	}
}

// word is a text that is not empty.
func (p *parser) word(key string, n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.Value == "" || n.Tag == "!!null" || strings.ContainsAny(n.Value, "\x00\n") {
		p.say(n, key, "want a text of one line")
		return ""
	}
	return n.Value
}

func (p *parser) oneOf(key string, n *yaml.Node, known []string) string {
	word := p.word(key, n)
	if word != "" && !slices.Contains(known, word) {
		p.say(n, key, "%q: want one of %s", word, strings.Join(known, ", "))
	}
	return word
}

// words is a list of texts; an empty one is not nil.
func (p *parser) words(key string, n *yaml.Node) []string {
	if n.Kind != yaml.SequenceNode {
		p.say(n, key, "want a list")
		return nil
	}
	out := []string{}
	for _, one := range n.Content {
		if w := p.word(key, one); w != "" {
			out = append(out, w)
		}
	}
	return out
}

func (p *parser) consoles(key string, n *yaml.Node) []string {
	list := p.words(key, n)
	for _, c := range list {
		if !regexp.MustCompile(`^[A-Za-z]+[0-9]*(,[0-9]+[noe]?[78]?r?)?$`).MatchString(c) {
			p.say(n, key, "%q: want a device and perhaps its speed, as in ttyS0,115200", c)
		}
	}
	return list
}

func (p *parser) paths(key string, n *yaml.Node) []string {
	var out []string
	for _, w := range p.words(key, n) {
		out = append(out, p.path(w))
	}
	return out
}

// path is relative to the folder of the definition.
func (p *parser) path(name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(filepath.Dir(p.file), name)
}
