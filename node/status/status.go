// Package status is what a machine can say of itself as a node: its role, whom it trusts and by what, its place among
// etcd's members, when certificates end, and what it waits for.
//
// The running supervisor tells over a socket that only root may open (Serve); what it has not learnt, and all of it while
// no supervisor runs, comes from files (Files). Nothing here changes anything, and no secret is ever part of a Report.
// node/server and node/agent fill a Live, `node status` (node/command) asks and renders.
package status

import (
	"time"

	"keelson/node/certificate"
)

// DefaultSocket is where the supervisor tells. Its folder is root's alone.
const DefaultSocket = "/run/keelson/node/status.sock"

// DefaultNotes is where PID 1 leaves what it has to say of the user-data (init/layout, UserDataNotes): a line each.
const DefaultNotes = "/run/keelson/user-data.notes"

// Roles, and the parts of a server.
const (
	Server       = "server"
	Agent        = "agent"
	PartEtcd     = "etcd"
	PartControls = "control-plane"
)

// States of the supervisor.
const (
	Up       = "up"
	Starting = "starting"
	Stopped  = "stopped"
)

// Report is all of it. What is empty is not so, or not known.
type Report struct {
	State        string              `json:"state"` // up, starting or stopped
	Now          time.Time           `json:"now"`
	Started      time.Time           `json:"started,omitzero"`
	Version      string              `json:"version"`
	Role         string              `json:"role,omitempty"`  // server or agent
	Parts        []string            `json:"parts,omitempty"` // of a server: etcd, control-plane
	Node         string              `json:"node,omitempty"`
	Join         string              `json:"server,omitempty"` // the server of the settings
	Waiting      []Wait              `json:"waiting,omitempty"`
	Balancers    []Balancer          `json:"balancers,omitempty"`
	Trust        Trust               `json:"trust"`
	TokenBefore  time.Time           `json:"tokenBeforeHonouredUntil,omitzero"` // of a rotation
	Etcd         *Etcd               `json:"etcd,omitempty"`
	Snapshot     *Snapshot           `json:"snapshot,omitempty"`
	Reset        *Reset              `json:"reset,omitempty"`
	Disk         *Disk               `json:"disk,omitempty"`
	NextRenewal  *Renewal            `json:"nextRenewal,omitempty"`
	Certificates []certificate.Entry `json:"certificates,omitempty"`
	UserData     []string            `json:"userData,omitempty"` // what was said of the machine's user-data, by document, line and key
	Problems     []string            `json:"problems,omitempty"` // why something is missing here
	Reasons      []Trouble           `json:"reasons,omitempty"`  // all that is not as it should be; none: all is well
}

// Wait is a step of the start that has not ended.
type Wait struct {
	For    string    `json:"for"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"` // what it was told last
}

// Balancer is a load balancer on this machine, with servers in the order in which a connection would try them.
type Balancer struct {
	Name    string    `json:"name"`
	Address string    `json:"address"` // where it listens
	Servers []Backend `json:"servers,omitempty"`
}

// Backend is one of a Balancer's servers.
type Backend struct {
	Address     string `json:"address"`
	State       string `json:"state"` // RKE2's names: ACTIVE has the connections
	Connections int    `json:"connections"`
}

// How an authority came to be trusted.
const (
	ByToken    = "token"     // the token has its hash
	ByFirstUse = "first-use" // it was the first one seen
	ByOwn      = "own"       // this server began the cluster
	ByEarlier  = "earlier"   // known since an earlier start
)

// Trust is whom the machine believes to be its cluster.
type Trust struct {
	Authority string `json:"authority,omitempty"` // hash of server-ca.crt, as tokens have it
	How       string `json:"how,omitempty"`
}

// Etcd is this server's place in etcd.
type Etcd struct {
	Name    string   `json:"name,omitempty"`
	Member  string   `json:"member,omitempty"`  // hexadecimal
	Cluster string   `json:"cluster,omitempty"` // hexadecimal
	Role    string   `json:"role,omitempty"`    // voter or learner
	Leader  bool     `json:"leader"`            // this member leads
	Members []Member `json:"members,omitempty"`
	Error   string   `json:"error,omitempty"` // why etcd itself does not tell
}

// What a member may be.
const (
	Voter   = "voter"
	Learner = "learner"
)

// Member is one of etcd's.
type Member struct {
	Name   string `json:"name"`
	ID     string `json:"id"`
	Role   string `json:"role"`
	Leader bool   `json:"leader,omitempty"`
}

// Snapshot is the last one of this server, and how the last try of this supervisor went.
type Snapshot struct {
	Name     string    `json:"name,omitempty"`
	Location string    `json:"location,omitempty"`
	Remote   string    `json:"remote,omitempty"` // in the object store
	Created  time.Time `json:"created,omitzero"`
	Bytes    int64     `json:"bytes,omitempty"`
	Verified bool      `json:"verified"` // read back and checked before it got its name
	Failed   time.Time `json:"failed,omitzero"`
	Error    string    `json:"error,omitempty"` // of the last try
}

// Reset is what is left of resets of the cluster.
type Reset struct {
	Epoch    int64     `json:"epoch,omitempty"`
	At       time.Time `json:"at,omitzero"`
	State    string    `json:"state,omitempty"`    // what is still to be done
	Rejoined bool      `json:"rejoined,omitempty"` // at this start the server's data was put away
	OldData  []string  `json:"oldData,omitempty"`  // folders that were put away
}

// Renewal is the certificate that is renewed next.
type Renewal struct {
	File string    `json:"file"`
	At   time.Time `json:"at"`
}

// Disk is the file system of the data folder.
type Disk struct {
	Path    string    `json:"path"`
	Total   uint64    `json:"totalBytes"`
	Free    uint64    `json:"freeBytes"`
	Reserve uint64    `json:"reserveBytes"` // held for an emergency
	Alarm   string    `json:"alarm,omitempty"`
	Since   time.Time `json:"since,omitzero"` // of the alarm
	Text    string    `json:"text,omitempty"` // of the alarm
}
