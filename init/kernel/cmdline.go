package kernel

import "strings"

// Cmdline is the kernel command line, cut into parameters.
type Cmdline []Param

// Param is one parameter; Value is empty both for "name" and "name=".
type Param struct{ Name, Value string }

// ParseCmdline cuts s as the kernel does (lib/cmdline.c, next_arg): spaces
// separate, double quotes keep spaces, quotes around a value or a whole
// parameter are dropped, what follows "--" is for init and not a parameter.
func ParseCmdline(s string) Cmdline {
	var out Cmdline
	for _, word := range cutWords(s) {
		if word == "--" {
			break
		}
		if len(word) >= 2 && word[0] == '"' && word[len(word)-1] == '"' {
			word = word[1 : len(word)-1]
		}
		name, value, _ := strings.Cut(word, "=")
		if len(value) > 0 && value[0] == '"' {
			value = strings.TrimSuffix(value[1:], `"`)
		}
		if name != "" {
			out = append(out, Param{name, value})
		}
	}
	return out
}

func cutWords(s string) []string {
	var words []string
	start, quoted := -1, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
			if start < 0 {
				start = i
			}
		case !quoted && (c == ' ' || c == '\t' || c == '\n'):
			if start >= 0 {
				words = append(words, s[start:i])
			}
			start = -1
		case start < 0:
			start = i
		}
	}
	if start >= 0 {
		words = append(words, s[start:])
	}
	return words
}

// Get is the value of the last parameter of that name, as the kernel's own
// parameters work.
func (c Cmdline) Get(name string) (string, bool) {
	for i := len(c) - 1; i >= 0; i-- {
		if c[i].Name == name {
			return c[i].Value, true
		}
	}
	return "", false
}

// ModuleParams gathers "module.name=value" for every module, in the form that
// finit_module takes. The names of modules use underscores.
func (c Cmdline) ModuleParams() map[string]string {
	out := map[string]string{}
	for _, p := range c {
		module, name, ok := strings.Cut(p.Name, ".")
		if !ok || module == "" || name == "" || module == "keelson" {
			continue
		}
		setting := name
		if p.Value != "" {
			value := p.Value
			if strings.ContainsAny(value, " \t") {
				value = `"` + value + `"`
			}
			setting += "=" + value
		}
		key := normal(module)
		out[key] = strings.TrimSpace(out[key] + " " + setting)
	}
	return out
}
