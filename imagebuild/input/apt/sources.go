package apt

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// Sources renders, in deb822 or one-line form as found, those of the host's own apt sources that serve the suite or one of its
// pockets (bookworm, bookworm-updates, bookworm-security). Sources of other vendors are left out, so a broken one cannot stop
// a build. Marks that switch the signature check off ("Trusted: yes", "[trusted=yes]") are dropped: what is unsigned is refused.
// Components are asked for wherever main is, on the same servers and under the same signature.
// Formats: sources.list(5).
func Sources(etc, suite string, components ...string) (list, deb822 []byte, err error) {
	var files []string
	for _, pattern := range []string{"sources.list", "sources.list.d/*.list", "sources.list.d/*.sources"} {
		found, err := filepath.Glob(filepath.Join(etc, pattern))
		if err != nil {
			return nil, nil, fmt.Errorf("look for apt sources in %s: %w", etc, err)
		}
		sort.Strings(found)
		files = append(files, found...)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, nil, fmt.Errorf("read apt sources: %w", err)
		}
		if strings.HasSuffix(name, ".sources") {
			deb822 = append(deb822, stanzasOf(string(text), suite, components)...)
		} else {
			list = append(list, linesOf(string(text), suite, components)...)
		}
	}
	if len(list)+len(deb822) == 0 {
		return nil, nil, fmt.Errorf("apt sources under %s name no suite %q: add Debian's to %s/sources.list.d and try again", etc, suite, etc)
	}
	return list, deb822, nil
}

func serves(suites []string, suite string) bool {
	for _, s := range suites {
		if s == suite || strings.HasPrefix(s, suite+"-") || s == suite+"/updates" {
			return true
		}
	}
	return false
}

// with adds components to those of a source that has main.
func with(have, more []string) []string {
	if !slices.Contains(have, "main") {
		return have
	}
	for _, c := range more {
		if !slices.Contains(have, c) {
			have = append(have, c)
		}
	}
	return have
}

func linesOf(text, suite string, components []string) string {
	var out strings.Builder
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		rest, ok := strings.CutPrefix(line, "deb ")
		if !ok {
			continue
		}
		rest = strings.TrimSpace(rest)
		options := ""
		if strings.HasPrefix(rest, "[") {
			end := strings.Index(rest, "]")
			if end < 0 {
				continue
			}
			var kept []string
			for _, option := range strings.Fields(rest[1:end]) {
				if !strings.HasPrefix(strings.ToLower(option), "trusted=") && !strings.HasPrefix(strings.ToLower(option), "allow-") {
					kept = append(kept, option)
				}
			}
			if len(kept) > 0 {
				options = "[" + strings.Join(kept, " ") + "] "
			}
			rest = strings.TrimSpace(rest[end+1:])
		}
		fields := strings.Fields(rest)
		if len(fields) < 2 || !serves(fields[1:2], suite) {
			continue
		}
		out.WriteString("deb " + options + strings.Join(append(fields[:2:2], with(fields[2:], components)...), " ") + "\n")
	}
	return out.String()
}

func stanzasOf(text, suite string, components []string) string {
	var out strings.Builder
	for _, stanza := range paragraphs(text) {
		var kept []string
		wanted, isDeb, on, dropping := false, false, true, false
		for _, line := range strings.Split(stanza, "\n") {
			if strings.HasPrefix(line, "#") {
				continue
			}
			if line != "" && (line[0] == ' ' || line[0] == '\t') {
				if !dropping {
					kept = append(kept, line)
				}
				continue
			}
			key, value, _ := strings.Cut(line, ":")
			fields := strings.Fields(value)
			dropping = false
			switch strings.ToLower(key) {
			case "trusted", "allow-insecure", "allow-weak", "allow-downgrade-to-insecure":
				dropping = true
				continue
			case "types":
				for _, f := range fields {
					isDeb = isDeb || f == "deb"
				}
				line = "Types: deb"
			case "components":
				line = "Components: " + strings.Join(with(fields, components), " ")
			case "suites":
				wanted = serves(fields, suite)
			case "enabled":
				on = len(fields) == 1 && (strings.EqualFold(fields[0], "yes") || strings.EqualFold(fields[0], "true"))
			}
			kept = append(kept, line)
		}
		if wanted && isDeb && on {
			out.WriteString(strings.Join(kept, "\n") + "\n\n")
		}
	}
	return out.String()
}

// paragraphs splits deb822 text at its blank lines.
func paragraphs(text string) []string {
	var out []string
	var lines []string
	flush := func() {
		if len(lines) > 0 {
			out = append(out, strings.Join(lines, "\n"))
			lines = nil
		}
	}
	for _, line := range strings.Split(text, "\n") {
		if strings.TrimSpace(line) == "" {
			flush()
			continue
		}
		lines = append(lines, strings.TrimRight(line, " \t\r"))
	}
	flush()
	return out
}
