package config

import (
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
)

// Table writes all keys as a Markdown document, the way KEYS.md holds them.
func Table() string {
	var b strings.Builder
	b.WriteString("# Keys of config.yaml\n\nPrinted from the table in keys.go and refused.go: `go test ./node/config -run TestTable -update`.\n")
	b.WriteString("\n## Honoured\n\nAn agent passes the keys of servers over, and says so on its console; a file may be shared between the roles.\n\n| key | takes | default | of | sets |\n| --- | --- | --- | --- | --- |\n")
	keys := Keys()
	slices.SortFunc(keys, func(a, b Key) int { return strings.Compare(a.Name, b.Name) })
	defaults := Default()
	for _, k := range keys {
		if k.Status == Honoured {
			field := k.bind(&defaults)
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.Name, takes(field), defaultText(field), roles(k.Name), k.Doc)
		}
	}
	b.WriteString("\n## Refused\n\nEach is refused with its line and the reason, unless it has one of the values that ask for what happens anyway.\n\n| key | accepted values | of | reason |\n| --- | --- | --- | --- |\n")
	for _, k := range keys {
		if k.Status == Refused {
			var accepted []string
			for _, v := range k.Neutral {
				if v == "" {
					v = "(empty)"
				}
				accepted = append(accepted, "`"+v+"`")
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Name, strings.Join(accepted, ", "), roles(k.Name), k.Reason)
		}
	}
	return b.String()
}

// roles says which machines a key concerns.
func roles(name string) string {
	if ForServers(name) {
		return "servers"
	}
	return "all"
}

func takes(field any) string {
	switch field.(type) {
	case *bool:
		return "true, false"
	case *int:
		return "number"
	case *[]string, *map[string]string, *map[string]int32:
		return "list"
	case *[]netip.Addr:
		return "addresses"
	case *[]netip.Prefix:
		return "networks"
	case *netip.Addr:
		return "address"
	default:
		return "text"
	}
}

func defaultText(field any) string {
	switch f := field.(type) {
	case *string:
		if *f != "" {
			return "`" + *f + "`"
		}
	case *int:
		return fmt.Sprintf("`%d`", *f)
	case *PortRange:
		return "`" + f.String() + "`"
	case *fs.FileMode:
		return fmt.Sprintf("`%#o`", uint32(*f))
	}
	return ""
}
