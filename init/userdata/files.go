package userdata

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"keelson/init/layout"
)

// writeFiles reads cloud-init's write_files. The list of a later document
// replaces the list of an earlier one.
func (l *loader) writeFiles(n *yaml.Node) {
	l.files = nil
	for i, item := range l.Items(n, "write_files") {
		before := len(l.Problems)
		f, ok := l.file(item, fmt.Sprintf("write_files[%d]", i))
		if ok && len(l.Problems) == before {
			l.checkSettingsFile(f)
		}
		if ok {
			l.files = append(l.files, f)
		}
	}
}

// file reads one entry; false where there is nothing to write.
func (l *loader) file(n *yaml.Node, at string) (File, bool) {
	known := []string{"append", "content", "defer", "encoding", "owner", "path", "permissions"}
	f := File{Mode: 0o644, Source: l.Source, Line: n.Line}
	var encoding, content string
	var contentNode *yaml.Node
	var binary bool
	ok := n.Kind == yaml.MappingNode
	if !ok {
		l.Bad(n, at, "is %s where a map with path and content is wanted", kindName(n))
		return f, false
	}
	for _, p := range l.Pairs(n, at) {
		key, good := Join(at, p.Name), true
		switch p.Name {
		case "path":
			f.Path, good = l.String(p.Value, key)
		case "content":
			contentNode = p.Value
			if !isNull(p.Value) {
				content, good = l.String(p.Value, key)
			}
			binary = p.Value.Tag == "!!binary" // YAML's own base64
		case "encoding":
			encoding, good = l.String(p.Value, key)
		case "owner":
			good = l.owner(p.Value, key)
		case "permissions":
			f.Mode, good = l.mode(p.Value, key)
		case "append":
			f.Append, good = l.Bool(p.Value, key)
		case "defer":
			f.Defer, good = l.Bool(p.Value, key)
		case "source":
			l.Bad(p.Key, key, "is not supported: nothing is fetched at boot; put the text into content")
			good = false
		default:
			l.Unknown(p, at, known)
			good = false
		}
		ok = ok && good
	}
	if !ok {
		return f, false
	}
	if f.Path == "" {
		l.Bad(n, at, "has no path; add the absolute path of the file")
		return f, false
	}
	if skip := l.checkPath(n, at, f.Path); skip {
		return f, false
	}
	data, err := []byte(content), error(nil)
	if binary {
		data, err = decodeContent("b64", content)
	}
	if err == nil {
		data, err = decodeContent(encoding, string(data))
	}
	if err != nil {
		where := n
		if contentNode != nil {
			where = contentNode
		}
		l.Bad(where, Join(at, "content"), "%v", err)
		return f, false
	}
	f.Data = data
	return f, true
}

func (l *loader) owner(n *yaml.Node, key string) bool {
	s, ok := l.String(n, key)
	if !ok {
		return false
	}
	user, group, grouped := strings.Cut(s, ":")
	isRoot := func(name string) bool { return name == "root" || name == "0" }
	if !isRoot(user) || grouped && !isRoot(group) {
		l.Bad(n, key, "%.60q does not exist on a node; leave owner out, or write root:root", s)
		return false
	}
	return true
}

// mode reads permissions. cloud-init takes a text as octal and a number as YAML
// reads it, so that an unquoted 644 means something nobody wants; it is refused.
func (l *loader) mode(n *yaml.Node, key string) (fs.FileMode, bool) {
	s, ok := l.String(n, key)
	if !ok {
		return 0, false
	}
	digits := strings.TrimPrefix(s, "0o")
	v, err := strconv.ParseUint(digits, 8, 32)
	if err != nil || v > 0o777 || n.Tag == "!!int" && !strings.HasPrefix(s, "0") {
		l.Bad(n, key, "%.20q is not a file mode; write it in quotes, like '0644' (no setuid, setgid or sticky bit)", s)
		return 0, false
	}
	return fs.FileMode(v), true
}

// checkPath says whether to leave a file out. Below the read-only root it is
// passed over like runcmd, for user-data is often shared with other systems;
// a path that means nothing anywhere is a mistake.
func (l *loader) checkPath(n *yaml.Node, at, p string) (skip bool) {
	if !path.IsAbs(p) || path.Clean(p) != p || strings.ContainsRune(p, 0) || len(p) > 4000 {
		l.Bad(n, Join(at, "path"), "%.200q is not a plain absolute path of a file", p)
		return true
	}
	if p == layout.StateKeelson || under(p, layout.StateKeelson) || p == layout.RKE2UserData {
		l.Bad(n, Join(at, "path"), "%s is written by the machine itself; choose another path", p)
		return true
	}
	for _, dir := range writable() {
		if under(p, dir) {
			return false
		}
	}
	l.Note(n, Join(at, "path"), "%.200s is on the read-only root; files can be written below %s (passed over)",
		p, strings.Join(writable(), ", "))
	return true
}

// writable lists the folders that are not part of the verified root.
func writable() []string { return []string{"/etc", "/run", "/tmp", "/var"} }

func under(p, dir string) bool { return strings.HasPrefix(p, dir+"/") }

// decodeContent undoes the encodings of cloud-init's cc_write_files.
func decodeContent(encoding, content string) ([]byte, error) {
	packed, coded := false, false
	switch strings.ToLower(encoding) {
	case "", "text/plain", "plain":
	case "b64", "base64":
		coded = true
	case "gz", "gzip":
		packed = true
	case "gz+base64", "gzip+base64", "gz+b64", "gzip+b64":
		packed, coded = true, true
	default:
		return nil, fmt.Errorf("has the encoding %.40q; use text/plain, b64, gzip or gz+b64", encoding)
	}
	data := []byte(content)
	var err error
	if coded {
		// Line breaks are ignored by the decoder, blanks of a folded text are not.
		data, err = base64.StdEncoding.DecodeString(strings.NewReplacer(" ", "", "\t", "").Replace(content))
		if err != nil {
			return nil, fmt.Errorf("is not valid base64: %w; encode it anew", err)
		}
	}
	if packed {
		if data, err = gunzip(data); err != nil {
			return nil, fmt.Errorf("is not valid gzip: %w; binary content needs the encoding gz+b64", err)
		}
	}
	return data, nil
}

// checkSettingsFile judges a file that node will read as RKE2's settings, so
// that a mistake is found here, by the line within the content.
func (l *loader) checkSettingsFile(f File) {
	inD := path.Dir(f.Path) == layout.RKE2ConfigD && (strings.HasSuffix(f.Path, ".yaml") || strings.HasSuffix(f.Path, ".yml"))
	if f.Path != layout.RKE2Config && !inD {
		return
	}
	inner := loader{Reader: Reader{Source: l.Source + ": content of " + f.Path}, public: l.public}
	switch n := inner.Parse(f.Data); {
	case n == nil:
	case f.Append: // a piece of the file: keys may be twice in the whole, but secrets are secrets
		inner.checkSecrets(n, "")
	default:
		inner.checkRKE2(n, "")
	}
	l.Problems = append(l.Problems, inner.Problems...)
}
