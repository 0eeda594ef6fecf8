package userdata

import (
	"fmt"
	"io/fs"
	"strings"
	"unicode"
)

// Document is one file as a source gave it.
type Document struct {
	Source string `json:"source"` // what the console calls it, "cidata volume /dev/vdb: user-data"
	Data   []byte `json:"data"`
	// Public says that every process and the firmware can read the source (the
	// kernel command line), so that a secret in it is refused.
	Public bool `json:"public,omitempty"`
}

// Documents are all that the sources gave, each list in rising precedence.
type Documents struct {
	Vendor  []Document `json:"vendor-data,omitempty"`
	User    []Document `json:"user-data,omitempty"`
	Meta    []Document `json:"meta-data,omitempty"`
	Network []Document `json:"network-config,omitempty"` // for netconfig.Load
}

// Empty reports whether no source gave anything.
func (d Documents) Empty() bool {
	return len(d.Vendor)+len(d.User)+len(d.Meta)+len(d.Network) == 0
}

// Config is the merged and checked result. Zero fields mean "not said".
type Config struct {
	InstanceID string // meta-data instance-id
	Hostname   string // the name of the node, one label or more
	FQDN       string // with the domain, for /etc/hosts
	Role       string // RoleServer or RoleAgent; RoleServer where nobody says
	Files      []File // write_files in order, then rke2's map
	NTP        NTP
	Timezone   string // name below /usr/share/zoneinfo, checked for form only
	CACerts    CACerts
	Sysctls    []Sysctl // in the order of the documents
	Modules    []string // kernel modules to load
	SSHKeys    []string // for an SSH server of a debug overlay; also among Files
	Storage    Storage
	Power      Power
	Install    *Install // nil: nobody asks for it; only a medium that runs live follows it
}

// Roles of a machine.
const (
	RoleServer = "server" // control plane and workloads
	RoleAgent  = "agent"  // workloads alone
)

// File is one entry of write_files, content decoded. The owner is root.
type File struct {
	Path   string
	Data   []byte
	Mode   fs.FileMode
	Append bool
	Defer  bool   // write after everything else
	Source string // for errors of the writer
	Line   int
}

// NTP is cloud-init's ntp section. Pools are asked like servers.
type NTP struct {
	Disabled bool
	Servers  []string
}

// CACerts is cloud-init's ca_certs section.
type CACerts struct {
	RemoveDefaults bool
	Trusted        []string // PEM, one or more certificates each
}

// Sysctl is one kernel setting, Key in dotted or slashed form as given.
type Sysctl struct {
	Key, Value string
}

// Problem is one thing to tell the person who wrote a document.
type Problem struct {
	Source string
	Line   int    // 0: the whole document
	Key    string // dotted path, "rke2.node-lable"
	Text   string // what is wrong and what to do
	Fatal  bool   // the machine must not go on with this document

	servers bool // it is of a key that only servers use
}

// String renders the problem as the console shows it. It never holds a value
// that may be secret, and is one line without control characters: keys are free
// text, and what the console shows is read by people and by programs.
func (p Problem) String() string {
	s := p.Source
	if p.Line > 0 {
		s += fmt.Sprintf(": line %d", p.Line)
	}
	if p.Key != "" {
		s += ": " + p.Key[:min(len(p.Key), maxKey)]
		if len(p.Key) > maxKey {
			s += "..."
		}
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s+": "+p.Text)
}

// maxKey bounds what is shown of a dotted path; ours are a third as long.
const maxKey = 200

// Refused reports whether one of the problems forbids to go on.
func Refused(problems []Problem) bool {
	for _, p := range problems {
		if p.Fatal {
			return true
		}
	}
	return false
}
