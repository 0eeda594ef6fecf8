package config

import (
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// decode puts entries into c by the table of keys.
func decode(c *Config, entries []entry) Problems {
	var problems Problems
	keys := Keys()
	for _, e := range entries {
		i := slices.IndexFunc(keys, func(k Key) bool { return k.Name == e.key })
		switch {
		case i < 0:
			problems = append(problems, Problem{File: e.at.file, Line: e.at.line, Key: e.key, Message: unknown(e.key, keys)})
		case keys[i].Status == Refused:
			problems = append(problems, keys[i].refuse(e)...)
		default:
			problems = append(problems, keys[i].decode(c, e)...)
		}
		if c.origin == nil {
			c.origin = map[string]position{}
		}
		c.origin[e.key] = e.at
	}
	return problems
}

func unknown(name string, keys []Key) string {
	if slices.Contains(k3sKeys(), name) {
		return "is a key of k3s that RKE2 does not have; remove it"
	}
	var names []string
	for _, k := range keys {
		if k.Status == Honoured {
			names = append(names, k.Name)
		}
	}
	if near := nearest(name, names); near != "" {
		return "is not a known key; did you mean " + near + "?"
	}
	return "is not a known key; remove it"
}

// refuse judges an entry of a key that cannot be honoured: it passes where it asks for what happens anyway.
func (k Key) refuse(e entry) Problems {
	if !slices.ContainsFunc(e.values, func(v value) bool { return !slices.Contains(k.Neutral, plain(v.text)) }) {
		return nil
	}
	do := "remove it"
	for _, v := range k.Neutral {
		if v != "" {
			do = "remove it or set it to " + v
		}
	}
	return Problems{{File: e.at.file, Line: e.at.line, Key: e.key, Message: "is not supported: " + k.Reason + "; " + do}}
}

// plain gives a truth value that is written in another way, such as False, its usual form.
func plain(text string) string {
	if b, err := strconv.ParseBool(text); err == nil && len(text) > 1 { // 0 and 1 are numbers to some keys
		return strconv.FormatBool(b)
	}
	return text
}

// decode puts one entry into the field of its key.
func (k Key) decode(c *Config, e entry) Problems {
	var problems Problems
	fail := func(at position, format string, args ...any) {
		problems = append(problems, Problem{File: at.file, Line: at.line, Key: e.key, Message: fmt.Sprintf(format, args...)})
	}
	field := k.bind(c)
	if !isList(field) && !k.split && (e.list || e.append) {
		fail(e.at, "is a list; give one value")
		return problems
	}
	all := e.values
	if k.split {
		all = splitCommas(all)
	}
	if isList(field) {
		clearList(field)
		all = slices.DeleteFunc(slices.Clone(all), func(v value) bool { return v.text == "" })
	}
	for _, v := range all {
		err := set(field, v)
		if err == nil && k.check != nil && v.text != "" {
			err = k.check(v.text)
		}
		if err != nil {
			fail(v.at, "%v", err)
		}
	}
	if !isList(field) && len(all) > 1 && len(problems) == 0 {
		fail(e.at, "has %d values; give one", len(all))
	}
	return problems
}

func splitCommas(values []value) []value {
	var out []value
	for _, v := range values {
		for part := range strings.SplitSeq(v.text, ",") {
			out = append(out, value{text: strings.TrimSpace(part), null: v.null, at: v.at})
		}
	}
	return out
}

// isList tells whether a field takes more than one value.
func isList(field any) bool {
	switch field.(type) {
	case *[]string, *[]netip.Addr, *[]netip.Prefix, *map[string]string, *map[string]int32:
		return true
	}
	return false
}

// clearList empties a list before a file's values go in: a list replaces the default as a whole.
func clearList(field any) {
	switch f := field.(type) {
	case *[]string:
		*f = nil
	case *[]netip.Addr:
		*f = nil
	case *[]netip.Prefix:
		*f = nil
	case *map[string]string:
		*f = map[string]string{}
	case *map[string]int32:
		*f = map[string]int32{}
	}
}

// set puts one value into a field, by the field's type. The error is worded for the Problem; it never holds the
// text of a Secret.
func set(field any, v value) error {
	switch f := field.(type) {
	case *string:
		if v.text != "" { // an empty text asks for the default, as in RKE2
			*f = v.text
		}
	case *Secret:
		*f = Secret(v.text)
	case *bool:
		b, err := strconv.ParseBool(v.text)
		if err != nil {
			return fmt.Errorf("is %q; write true or false", v.text)
		}
		*f = b
	case *int:
		n, err := strconv.ParseInt(v.text, 10, 32)
		if err != nil || n < 0 {
			return fmt.Errorf("is %q; write a number", v.text)
		}
		*f = int(n)
	case *netip.Addr:
		if v.text == "" {
			*f = netip.Addr{}
			return nil
		}
		a, err := parseAddr(v.text)
		if err != nil {
			return err
		}
		*f = a
	case *PortRange:
		r, err := parsePortRange(v.text)
		if err != nil {
			return err
		}
		*f = r
	case *fs.FileMode:
		mode, err := strconv.ParseUint(strings.TrimPrefix(v.text, "0o"), 8, 32)
		if err != nil || mode > 0o777 {
			return fmt.Errorf("is %q; write an octal file mode such as 0600", v.text)
		}
		*f = fs.FileMode(mode)
	case *[]string:
		*f = append(*f, v.text)
	case *[]netip.Addr:
		a, err := parseAddr(v.text)
		if err != nil {
			return err
		}
		*f = append(*f, a)
	case *[]netip.Prefix:
		p, err := netip.ParsePrefix(v.text)
		if err != nil || p.Masked() != p {
			return fmt.Errorf("%q is not a network; write its first address and prefix length, such as 10.42.0.0/16", v.text)
		}
		*f = append(*f, p)
	case *map[string]string:
		name, text, _ := strings.Cut(v.text, "=")
		(*f)[name] = text
	case *map[string]int32:
		name, text, _ := strings.Cut(v.text, "=")
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return fmt.Errorf("%q does not end in a number; write name=number", v.text)
		}
		(*f)[name] = int32(n)
	default:
		return fmt.Errorf("has a field of type %T, which has no reader", field)
	}
	return nil
}

func parseAddr(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", text)
	}
	return a.Unmap(), nil
}

// parsePortRange reads "first-last", the one of kube-apiserver's forms that RKE2 documents.
func parsePortRange(text string) (PortRange, error) {
	first, last, _ := strings.Cut(text, "-")
	a, errFirst := strconv.ParseUint(first, 10, 16)
	b, errLast := strconv.ParseUint(last, 10, 16)
	if errFirst != nil || errLast != nil || a == 0 || a > b {
		return PortRange{}, fmt.Errorf("is %q; write first-last, such as 30000-32767", text)
	}
	return PortRange{First: uint16(a), Last: uint16(b)}, nil
}
