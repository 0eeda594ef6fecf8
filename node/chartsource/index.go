package chartsource

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"sigs.k8s.io/yaml"
)

// maxWhole is how long an index may be that is read at once: its tree takes many times as much.
const maxWhole = 4 << 20

// entry is a version of a chart in a repository's index (https://helm.sh/docs/topics/chart_repository/).
type entry struct {
	Version string   `json:"version"`
	URLs    []string `json:"urls"`
	Digest  string   `json:"digest"`
}

// find returns the version of a chart that a constraint asks for.
func find(index []byte, chart, constraint string) (entry, error) {
	entries, err := entriesOf(index, chart)
	if err != nil {
		return entry{}, err
	}
	entries = slices.DeleteFunc(entries, func(e entry) bool { return len(e.URLs) == 0 })
	if len(entries) == 0 {
		return entry{}, fmt.Errorf("the repository's index has no chart %q", chart)
	}
	var versions []string
	for _, e := range entries {
		versions = append(versions, e.Version)
	}
	best, err := pick(versions, constraint)
	if err != nil {
		return entry{}, err
	}
	return entries[best], nil
}

// entriesOf reads one chart's versions. An index is the work of a machine, a chart's entries are lines of it that stand
// together, and the other 99 of 100 are not worth what it costs to read them. Where those lines are not seen, a short
// index is read whole.
func entriesOf(index []byte, chart string) ([]entry, error) {
	var entries []entry
	if block := blockOf(index, chart); block != nil && yaml.Unmarshal(block, &entries) == nil && len(entries) > 0 {
		return entries, nil
	}
	if len(index) > maxWhole {
		return nil, fmt.Errorf("the repository's index has no chart %q", chart)
	}
	var whole struct {
		Entries map[string][]entry `json:"entries"`
	}
	if err := yaml.Unmarshal(index, &whole); err != nil {
		return nil, fmt.Errorf("the repository's index.yaml is not one") // the parser's words quote what it read
	}
	return whole.Entries[chart], nil
}

// blockOf returns the lines of a chart's entries: those below its name that are deeper, or as deep and part of a list.
func blockOf(index []byte, chart string) []byte {
	inside, found := false, false
	depth := -1
	var block bytes.Buffer
	for line := range bytes.Lines(index) {
		text := bytes.TrimRight(line, " \r\n")
		body := bytes.TrimLeft(text, " ")
		if len(body) == 0 || body[0] == '#' {
			if found {
				block.Write(line)
			}
			continue
		}
		at := len(text) - len(body)
		switch {
		case at == 0 && body[0] != '-':
			if found {
				return block.Bytes()
			}
			inside = string(body) == "entries:"
		case !inside:
		case found && (at > depth || at == depth && body[0] == '-'):
			block.Write(line)
		case found:
			return block.Bytes()
		default:
			if depth < 0 {
				depth = at
			}
			if at == depth {
				found = string(body) == chart+":"
			}
		}
	}
	if !found {
		return nil
	}
	return block.Bytes()
}

// pick returns which version is asked for: the very one, or the highest that a constraint allows. Without a constraint it is
// the highest that is no pre-release, as with helm.
func pick(versions []string, constraint string) (int, error) {
	if at := slices.Index(versions, constraint); constraint != "" && at >= 0 {
		return at, nil
	}
	text := constraint
	if text == "" {
		text = "*"
	}
	wanted, err := semver.NewConstraint(text)
	if err != nil {
		return 0, fmt.Errorf("spec.version: %q is neither a version nor a range of versions", constraint)
	}
	best := -1
	var highest *semver.Version
	for i, one := range versions {
		v, err := semver.NewVersion(one)
		if err != nil || !wanted.Check(v) || best >= 0 && !v.GreaterThan(highest) {
			continue
		}
		best, highest = i, v
	}
	if best < 0 {
		return 0, fmt.Errorf("spec.version: none of its %d versions is %q; among them are %s", len(versions), text, strings.Join(newest(versions), ", "))
	}
	return best, nil
}

// newest lists a few versions for a message, and only what is a version: the rest is a stranger's text.
func newest(versions []string) []string {
	var known []*semver.Version
	for _, one := range versions {
		if v, err := semver.StrictNewVersion(one); err == nil && len(one) < 40 {
			known = append(known, v)
		}
	}
	slices.SortFunc(known, func(a, b *semver.Version) int { return b.Compare(a) })
	var texts []string
	for _, v := range known[:min(len(known), 5)] {
		texts = append(texts, v.Original())
	}
	return texts
}

// exact tells whether a text is one version, and no range of them.
func exact(version string) bool {
	_, err := semver.StrictNewVersion(strings.TrimPrefix(version, "v"))
	return err == nil
}
