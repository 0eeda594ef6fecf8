package userdata

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"keelson/init/layout"
	"keelson/node/config"
)

// mergeRKE2 checks one document's rke2 map against the keys of RKE2's
// config.yaml and lays it over what earlier documents said.
func (l *loader) mergeRKE2(n *yaml.Node) {
	settings := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: n.Line}
	for _, p := range l.Pairs(n, "rke2") {
		if p.Name == "role" {
			l.role(p.Value)
			continue
		}
		settings.Content = append(settings.Content, p.Key, p.Value)
	}
	l.checkRKE2(settings, "rke2")
	if l.rke2 == nil {
		l.rke2 = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	}
	overlay(l.rke2, settings)
}

func (l *loader) role(n *yaml.Node) {
	s, ok := l.String(n, "rke2.role")
	switch {
	case !ok:
	case s == RoleServer, s == RoleAgent:
		l.cfg.Role = s
	default:
		l.Bad(n, "rke2.role", "%.40q is no role; write server or agent", s)
	}
}

// checkRKE2 judges a map of RKE2's keys, wherever it was written. Line numbers
// are the map's own, so that they fit the document it is in.
func (l *loader) checkRKE2(n *yaml.Node, section string) {
	for _, p := range config.Check(n, l.Source) {
		// {token:abc} without a blank is one long key, which may hold a secret.
		if name, _, glued := strings.Cut(p.Key, ":"); glued {
			p.Key, p.Message = name, "lacks the blank after its colon"
		}
		l.Problems = append(l.Problems, Problem{
			Source: l.Source, Line: p.Line, Key: Join(section, p.Key), Text: p.Message, Fatal: true, servers: config.ForServers(p.Key),
		})
	}
	l.checkSecrets(n, section)
}

// excuse makes notes of mistakes in keys that an agent has no use for: files are shared between roles. It can only be
// told when all documents are read which role the machine has.
func (l *loader) excuse() {
	for i := range l.Problems {
		if p := &l.Problems[i]; p.servers && p.Fatal && l.cfg.Role == RoleAgent {
			p.Fatal, p.Text = false, p.Text+" (passed over: only servers use it)"
		}
	}
}

// checkSecrets refuses secrets where everybody can read them.
func (l *loader) checkSecrets(n *yaml.Node, section string) {
	if !l.public || n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := n.Content[i]; secretKey(strings.TrimSuffix(k.Value, "+")) {
			l.Bad(k, Join(section, k.Value), "is a secret, and every program can read this source; give it by a cidata volume or fw_cfg")
		}
	}
}

// secretKey names the keys of RKE2's config.yaml that hold a secret themselves
// (docs.rke2.io/reference/server_config).
func secretKey(name string) bool {
	switch name {
	case "token", "agent-token", "datastore-endpoint", "etcd-s3-access-key", "etcd-s3-secret-key",
		"etcd-s3-session-token", "vpn-auth":
		return true
	}
	return false
}

// overlay puts every key of over into base; a key that base has keeps its place.
func overlay(base, over *yaml.Node) {
	for i := 0; i+1 < len(over.Content); i += 2 {
		key, value := over.Content[i], over.Content[i+1]
		at := -1
		for j := 0; j+1 < len(base.Content); j += 2 {
			if base.Content[j].Value == key.Value {
				at = j
			}
		}
		if at < 0 {
			base.Content = append(base.Content, key, value)
		} else {
			base.Content[at+1] = value
		}
	}
}

// renderRKE2 makes the file that node reads, free of anchors and comments,
// which may belong to other parts of the user-data.
func renderRKE2(n *yaml.Node) ([]byte, error) {
	budget := 100_000
	plain, err := plainCopy(n, &budget, 0)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString("# Written from user-data at every boot; changes made here are lost.\n")
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(plain); err != nil {
		return nil, fmt.Errorf("render %s: %w", layout.RKE2UserData, err)
	}
	return out.Bytes(), nil
}

// plainCopy copies a tree with aliases replaced by what they stand for, within
// a budget of nodes, since aliases of aliases grow without bounds.
func plainCopy(n *yaml.Node, budget *int, depth int) (*yaml.Node, error) {
	n = deref(n)
	if *budget--; *budget < 0 || depth > 100 {
		return nil, fmt.Errorf("uses YAML anchors that grow beyond all bounds; write the values out")
	}
	c := &yaml.Node{Kind: n.Kind, Style: n.Style, Tag: n.Tag, Value: n.Value}
	for _, child := range n.Content {
		cc, err := plainCopy(child, budget, depth+1)
		if err != nil {
			return nil, err
		}
		c.Content = append(c.Content, cc)
	}
	return c, nil
}
