package mirror

import (
	"errors"
	"strings"

	"github.com/opencontainers/go-digest"
)

// question is what is asked for.
type question struct {
	registry   string // host[:port], as containerd names it in ns
	repository string
	manifest   bool          // and not a blob
	digest     digest.Digest // or
	tag        string        // of a manifest
}

// errPath is a path that asks for nothing which is served.
var errPath = errors.New("the path is not /v2/<name>/manifests/<reference> or /v2/<name>/blobs/<digest>, with ?ns=<registry>")

// parse takes a path apart, and the registry that containerd tells mirrors in ?ns= (core/remotes/docker, resolver.go).
// Everything in it is held to the grammar of distribution-spec ("Pulling manifests"), in which nothing leads upwards.
func parse(path, registry string) (question, error) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok || !isHost(registry) {
		return question{}, errPath
	}
	head, reference, ok := cutLast(rest)
	if !ok {
		return question{}, errPath
	}
	name, kind, ok := cutLast(head)
	q := question{registry: registry, repository: name, manifest: kind == "manifests"}
	if !ok || !q.manifest && kind != "blobs" || !isRepository(name) {
		return question{}, errPath
	}
	switch d := digest.Digest(reference); {
	case d.Validate() == nil:
		q.digest = d
	case q.manifest && isTag(reference):
		q.tag = reference
	default:
		return question{}, errPath
	}
	return q, nil
}

// path is the question as it is put to a peer: parse's reverse.
func (q question) path() string {
	kind, reference := "blobs", q.digest.String()
	if q.manifest {
		kind = "manifests"
	}
	if q.tag != "" {
		reference = q.tag
	}
	return "/v2/" + q.repository + "/" + kind + "/" + reference
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

func isAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// isHost takes host[:port]; an IPv6 address is in brackets.
func isHost(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && (c < 'A' || c > 'Z') && !strings.ContainsRune(".-:[]", rune(c)) {
			return false
		}
	}
	return s[0] != '.' && s[0] != '-'
}

// hostname is a registry without its port.
func hostname(registry string) string {
	if i := strings.LastIndexByte(registry, ':'); i > strings.LastIndexByte(registry, ']') {
		return registry[:i]
	}
	return registry
}

// isRepository: components of a-z and 0-9 with single separators (., _, __ or any number of -) inside, between slashes.
func isRepository(s string) bool {
	if len(s) > 255 {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || !isAlnum(part[0]) || !isAlnum(part[len(part)-1]) {
			return false
		}
		separator := ""
		for i := range len(part) {
			if isAlnum(part[i]) {
				separator = ""
				continue
			}
			separator += string(part[i])
			if separator != "." && separator != "_" && separator != "__" && strings.Trim(separator, "-") != "" {
				return false
			}
		}
	}
	return true
}

func isTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && (c < 'A' || c > 'Z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// oneRange returns a Range header that asks for one run of bytes (RFC 9110, 14.1.2), and nothing of any other: a server
// may answer that with the whole.
func oneRange(header string) string {
	first, last, ok := strings.Cut(strings.TrimPrefix(header, "bytes="), "-")
	if !ok || !strings.HasPrefix(header, "bytes=") || first == "" && last == "" {
		return ""
	}
	for _, number := range []string{first, last} {
		if len(number) > 18 || strings.Trim(number, "0123456789") != "" {
			return ""
		}
	}
	return header
}
