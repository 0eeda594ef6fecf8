package userdata

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"keelson/init/layout"
)

// loader gathers the merged settings while documents are read in order.
type loader struct {
	Reader
	cfg    *Config
	public bool
	rke2   *yaml.Node // merged map, nil while no document has one
	files  []File     // write_files of the last document that has the key
}

// Load merges and checks documents. The result is whole and never nil; it may
// be applied when Refused(problems) is false.
func Load(docs Documents) (*Config, []Problem) {
	l := &loader{cfg: &Config{Role: RoleServer}}
	for _, d := range docs.Meta {
		l.meta(d)
	}
	for _, d := range docs.Vendor {
		u := unpack(d)
		l.note(u.broken, false) // a cloud's own document must not stop a machine
		l.note(u.skipped, false)
		l.vendor(u.parts, d.Public)
	}
	var usable int
	var broken, skipped []Problem
	var parts []part
	public := map[string]bool{}
	for _, d := range docs.User {
		u := unpack(d)
		usable += len(u.parts)
		broken, skipped = append(broken, u.broken...), append(skipped, u.skipped...)
		for _, p := range u.parts {
			public[p.source] = d.Public
		}
		parts = append(parts, u.parts...)
	}
	l.note(broken, true)
	// A script beside a cloud-config is passed over; a script alone is somebody
	// who thinks that this machine will run it.
	l.note(skipped, usable == 0)
	for _, p := range parts {
		l.parts([]part{p}, public[p.source])
	}
	l.finish()
	return l.cfg, l.Problems
}

func unpack(d Document) *unpacker {
	u := &unpacker{}
	u.open(d.Source, "", d.Data, 0)
	return u
}

func (l *loader) note(problems []Problem, fatal bool) {
	for _, p := range problems {
		p.Fatal = fatal
		if !fatal {
			p.Text += " (passed over)"
		}
		l.Problems = append(l.Problems, p)
	}
}

// vendor reads the parts of a cloud's own document: each that holds a mistake is
// passed over whole, since half of it is what nobody meant, and the owner of
// the machine, who did not write it, could not correct it.
func (l *loader) vendor(parts []part, public bool) {
	for _, p := range parts {
		trial := &loader{cfg: &Config{}}
		trial.parts([]part{p}, public)
		if Refused(trial.Problems) {
			l.note(trial.Problems, false)
			continue
		}
		l.parts([]part{p}, public)
	}
}

func (l *loader) parts(parts []part, public bool) {
	for _, p := range parts {
		l.Source, l.public = p.source, public
		if root := l.Parse(p.data); root != nil {
			l.cloudConfig(root)
		}
	}
}

// finish turns what was merged into the Config.
func (l *loader) finish() {
	l.excuse()
	l.cfg.Files = l.files
	if len(l.cfg.SSHKeys) > 0 {
		l.cfg.Files = append(slices.Clone(l.files), File{
			Path: layout.SSHKeys, Data: []byte(strings.Join(l.cfg.SSHKeys, "\n") + "\n"), Mode: 0o600, Source: "user-data, key ssh_authorized_keys",
		})
	}
	if l.rke2 == nil {
		return
	}
	data, err := renderRKE2(l.rke2)
	if err != nil {
		l.Bad(nil, "rke2", "%v", err)
		return
	}
	l.cfg.Files = append(l.cfg.Files, File{
		Path: layout.RKE2UserData, Data: data, Mode: 0o600, Source: "user-data, key rke2",
	})
}

// meta reads NoCloud's meta-data: YAML without a first line. Few keys
// matter here; the rest is the cloud's business.
func (l *loader) meta(d Document) {
	l.Source = d.Source
	root := l.Parse(bytes.TrimPrefix(d.Data, []byte("\xef\xbb\xbf")))
	if root == nil {
		return
	}
	local := false // said in this document: local-hostname goes before hostname
	for _, p := range l.Pairs(root, "") {
		switch p.Name {
		case "instance-id":
			if s, ok := l.String(p.Value, p.Name); ok {
				l.cfg.InstanceID = s
			}
		case "redact", "cleanup-guestinfo":
			l.Note(p.Value, p.Name, "is not supported: guestinfo stays as it is; a machine without its copy on STATE would not know itself (passed over)")
		case "local-hostname", "hostname":
			s, ok := l.String(p.Value, p.Name)
			if !ok || p.Name == "hostname" && local {
				continue
			}
			host, fqdn, err := splitHostname(s)
			if err != nil {
				l.Note(p.Value, p.Name, "%v (passed over)", err)
				continue
			}
			l.cfg.Hostname, l.cfg.FQDN, local = host, fqdn, p.Name == "local-hostname"
		}
	}
}

func splitHostname(s string) (host, fqdn string, err error) {
	if err := checkName(s); err != nil {
		return "", "", err
	}
	host, fqdn = lowerFirst(s)
	return host, fqdn, nil
}

// checkName holds a host name to RFC 1123 2.1, which is what Kubernetes wants
// of a node's name as well.
func checkName(s string) error {
	const help = "use letters, digits and -, at most 63 between dots and 253 in all"
	if len(s) > 253 {
		return fmt.Errorf("%.40q... is too long for a host name; %s", s, help)
	}
	label := 0
	for i := range len(s) {
		c := s[i]
		edge := label == 0 || i+1 == len(s) || s[i+1] == '.'
		switch {
		case c == '.' && label > 0:
			label = 0
			continue
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-' && !edge:
		default:
			return fmt.Errorf("%q is not a host name; %s", s, help)
		}
		if label++; label > 63 {
			return fmt.Errorf("%q is not a host name; %s", s, help)
		}
	}
	if label == 0 {
		return fmt.Errorf("%q is not a host name; %s", s, help)
	}
	return nil
}
