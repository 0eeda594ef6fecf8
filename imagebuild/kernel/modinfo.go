package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"strings"
)

// Module is one module as its .modinfo section describes it.
type Module struct {
	Name     string
	Path     string // below the module directory, "kernel/..."
	File     string // the unpacked module on the machine that builds
	Depends  []string
	Aliases  []string
	Pre      []string // softdep
	Post     []string
	Soft     []string // the softdep strings as they are
	Firmware []string // files that the driver may ask for, below lib/firmware

	packed string // the module as the package has it
}

func readModule(file string) (Module, error) {
	f, err := elf.Open(file)
	if err != nil {
		return Module{}, fmt.Errorf("read module: %w", err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return Module{}, fmt.Errorf("read module %s: no .modinfo section", file)
	}
	data, err := section.Data()
	if err != nil {
		return Module{}, fmt.Errorf("read module %s: %w", file, err)
	}
	m, err := parseModinfo(data)
	if err != nil {
		return Module{}, fmt.Errorf("read module %s: %w", file, err)
	}
	return m, nil
}

// parseModinfo reads "key=value" strings, each ended by NULs
// (include/linux/moduleparam.h, __MODULE_INFO).
func parseModinfo(data []byte) (Module, error) {
	var m Module
	for _, field := range bytes.Split(data, []byte{0}) {
		key, value, ok := strings.Cut(string(field), "=")
		if !ok {
			continue
		}
		switch key {
		case "depends":
			for _, name := range strings.Split(value, ",") {
				if name != "" {
					m.Depends = append(m.Depends, strings.ReplaceAll(name, "-", "_"))
				}
			}
		case "firmware":
			m.Firmware = append(m.Firmware, value)
		case "alias":
			// An index file is made of lines and words.
			if words := strings.Fields(value); len(words) != 1 || words[0] != value {
				return Module{}, fmt.Errorf("alias %q has a blank", value)
			}
			m.Aliases = append(m.Aliases, value)
		case "softdep":
			if strings.ContainsAny(value, "\n\r") {
				return Module{}, errors.New("softdep has a line break")
			}
			m.Soft = append(m.Soft, value)
			pre, post := parseSoftdep(value)
			m.Pre, m.Post = append(m.Pre, pre...), append(m.Post, post...)
		}
	}
	return m, nil
}

// parseSoftdep reads "pre: a b post: c" (modprobe.d(5)).
func parseSoftdep(value string) (pre, post []string) {
	into := &pre
	for _, word := range strings.Fields(value) {
		switch word {
		case "pre:":
			into = &pre
		case "post:":
			into = &post
		default:
			*into = append(*into, strings.ReplaceAll(word, "-", "_"))
		}
	}
	return pre, post
}
