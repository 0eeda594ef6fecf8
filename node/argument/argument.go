// Package argument joins a component's own flags with those a user set through a `<component>-arg` key, by RKE2's
// rules. It knows no component: node/staticpod and node/kubelet give it their flags and start programs with the result.
package argument

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Merge returns base and extra as sorted --name=value arguments.
//
// An extra argument is "name=value" (or "name", meaning "name=true") and replaces what base has; "name+=value" is put
// after it and "name-=value" before it, as a flag of its own. A name that is given several times stays several
// flags, in their order (k3s pkg/util/args.go, GetArgs).
func Merge(base map[string]string, extra []string) ([]string, error) {
	values := make(map[string][]string, len(base))
	initial := maps.Clone(base)
	for _, arg := range extra {
		name, value, op, err := split(arg)
		if err != nil {
			return nil, err
		}
		old := values[name]
		if was, ok := initial[name]; ok && op != replace {
			old = append([]string{was}, old...)
		}
		delete(initial, name)
		if op == prepend {
			values[name] = append([]string{value}, old...)
		} else {
			values[name] = append(old, value)
		}
	}
	for name, value := range initial {
		values[name] = []string{value}
	}
	var args []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		for _, value := range values[name] {
			args = append(args, "--"+name+"="+value)
		}
	}
	return args, nil
}

// Names returns the flags that extra sets, so that a renderer can tell what the user has taken over.
func Names(extra []string) ([]string, error) {
	names := make([]string, 0, len(extra))
	for _, arg := range extra {
		name, _, _, err := split(arg)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

type operation int

const (
	replace operation = iota
	appendTo
	prepend
)

func split(arg string) (name, value string, op operation, err error) {
	name, value, found := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
	if !found {
		value = "true"
	}
	switch {
	case found && strings.HasSuffix(name, "+"):
		name, op = strings.TrimSuffix(name, "+"), appendTo
	case found && strings.HasSuffix(name, "-"):
		name, op = strings.TrimSuffix(name, "-"), prepend
	}
	if name == "" || strings.ContainsAny(name, " \t\r\n\x00") || strings.HasPrefix(name, "-") || strings.ContainsRune(value, 0) {
		return "", "", replace, fmt.Errorf("argument %q: not of the form name=value, name+=value or name-=value", arg)
	}
	return name, value, op, nil
}
