package grub

import (
	"fmt"
	"strings"
)

// parseDeps reads moddep.lst: "module: dependency dependency" a line.
func parseDeps(b []byte) map[string][]string {
	deps := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		name, rest, ok := strings.Cut(line, ":")
		if ok {
			deps[strings.TrimSpace(name)] = strings.Fields(rest)
		}
	}
	return deps
}

// closure is want and all it needs, each once, dependencies first: GRUB's
// kernel links the modules in the order they come.
func closure(deps map[string][]string, want []string) ([]string, error) {
	var out []string
	state := map[string]int{} // 1: being visited, 2: done
	var visit func(string) error
	visit = func(m string) error {
		switch state[m] {
		case 1:
			return fmt.Errorf("module %s depends on itself", m)
		case 2:
			return nil
		}
		needs, ok := deps[m]
		if !ok {
			return fmt.Errorf("no module %s", m)
		}
		state[m] = 1
		for _, n := range needs {
			if err := visit(n); err != nil {
				return err
			}
		}
		state[m] = 2
		out = append(out, m)
		return nil
	}
	for _, m := range want {
		if err := visit(m); err != nil {
			return nil, err
		}
	}
	return out, nil
}
