package etcdsnapshot

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// zipSuffix ends the names of compressed snapshots.
const zipSuffix = ".zip"

// Name is the name of a snapshot's file: <prefix>-<node>-<unix>[.zip] (k3s pkg/etcd/snapshot.go).
type Name struct {
	Prefix, Node string
	Unix         int64
	Zip          bool
}

func (n Name) String() string {
	s := n.Prefix + "-" + n.Node + "-" + strconv.FormatInt(n.Unix, 10)
	if n.Zip {
		s += zipSuffix
	}
	return s
}

// ParseName reads the name of a snapshot that node took. It tells snapshots of "a" and "a-1" apart: what stands
// between prefix and time must be the node's whole name.
func ParseName(name, node string) (Name, bool) {
	var n Name
	rest, zip := strings.CutSuffix(name, zipSuffix)
	n.Zip, n.Node = zip, node
	at := strings.LastIndexByte(rest, '-')
	if at < 0 || node == "" {
		return Name{}, false
	}
	unix, ok := parseUnix(rest[at+1:])
	if !ok {
		return Name{}, false
	}
	n.Unix = unix
	if n.Prefix, ok = strings.CutSuffix(rest[:at], "-"+node); !ok || CheckPrefix(n.Prefix) != nil {
		return Name{}, false
	}
	return n, true
}

// parseUnix reads a time as String writes it: no sign, no needless zero.
func parseUnix(digits string) (int64, bool) {
	unix, err := strconv.ParseInt(digits, 10, 64)
	return unix, err == nil && unix >= 0 && strconv.FormatInt(unix, 10) == digits
}

// created is the time in a snapshot's name, whoever took it.
func created(name string) (time.Time, bool) {
	rest := strings.TrimSuffix(name, zipSuffix)
	unix, ok := parseUnix(rest[strings.LastIndexByte(rest, '-')+1:])
	return time.Unix(unix, 0).UTC(), ok
}

// CheckPrefix judges what a user wants before the node's name. A file, an object and a resource's name come of it.
func CheckPrefix(prefix string) error {
	if prefix == "" || len(prefix) > 100 {
		return errors.New("a snapshot's name takes 1 to 100 characters")
	}
	for i, c := range []byte(prefix) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		inner := i > 0 && i < len(prefix)-1 && (c == '-' || c == '_' || c == '.')
		if !alnum && !inner {
			return fmt.Errorf("%q cannot be a snapshot's name: letters, digits and, between them, -_. can", prefix)
		}
	}
	return nil
}

// CheckFile judges the name of a file or object to delete, fetch or restore: never a path.
func CheckFile(name string) error {
	if name == "" || len(name) > 255 || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\\\x00") {
		return fmt.Errorf("%q is no snapshot's file name; give the name as `node etcd-snapshot list` shows it", name)
	}
	return nil
}
