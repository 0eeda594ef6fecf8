package status

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"keelson/node/certificate"
	"keelson/node/clusterreset"
	"keelson/node/config"
	"keelson/node/etcd"
	"keelson/node/etcdsnapshot"
	"keelson/node/member"
	"keelson/node/token"
	"keelson/node/trust"
)

// Files says where to look.
type Files struct {
	DataDir  string
	Role     string         // empty: what the files look like
	Settings *config.Config // nil: they cannot be read
	Version  string         // of this program
	Notes    string         // path of PID 1's notes on the user-data; empty: none
	Idle     bool           // no supervisor runs, so that etcd's data may be looked into
}

// Report reads the files. What cannot be read is told in Problems; what is not there is no problem.
func (f Files) Report(now time.Time) Report {
	r := Report{State: Stopped, Now: now.UTC().Truncate(time.Second), Version: f.Version, Role: f.Role}
	if r.Role == "" {
		r.Role = f.LastRole()
	}
	problem := func(err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.Problems = append(r.Problems, err.Error())
		}
	}
	if f.Settings != nil {
		r.Join = f.Settings.Server
		r.Node = f.Settings.NodeName
	}
	if r.Node == "" {
		r.Node = f.node()
	}
	var err error
	r.UserData, err = f.notes()
	problem(err)
	r.Trust, err = f.trust(r.Role)
	problem(err)
	if found, err := certificate.Look(f.DataDir, now); err != nil {
		if r.Role != "" {
			problem(err)
		}
	} else {
		r.Certificates = found
		r.NextRenewal = next(found)
	}
	r.Disk, err = f.disk()
	problem(err)
	if r.Role == Server {
		r.Parts = f.parts()
		r.Etcd, err = f.etcd()
		problem(err)
		r.Reset, err = f.reset()
		problem(err)
		r.Snapshot, err = f.snapshot(r.Node)
		problem(err)
	}
	return r
}

func (f Files) server(parts ...string) string {
	return filepath.Join(append([]string{f.DataDir, "server"}, parts...)...)
}

func (f Files) agent(parts ...string) string {
	return filepath.Join(append([]string{f.DataDir, "agent"}, parts...)...)
}

// mostNotes is more than PID 1 has to say of a document of the largest size.
const mostNotes = 1 << 20

// notes reads what PID 1 said of the user-data: unsupported keys, and mistakes that did not keep it from starting.
func (f Files) notes() ([]string, error) {
	if f.Notes == "" {
		return nil, nil
	}
	file, err := os.Open(f.Notes)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, mostNotes))
	if err != nil {
		return nil, fmt.Errorf("read notes on the user-data: %w", err)
	}
	var all []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(strings.TrimPrefix(line, "user-data: ")); line != "" {
			all = append(all, line)
		}
	}
	return all, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// LastRole is what the machine was when it ran last, as far as its files tell.
func (f Files) LastRole() string {
	switch {
	case exists(f.server("cred", "passwd")):
		return Server
	case exists(f.agent("server-ca.crt")), exists(f.agent("etc", trust.PinName)):
		return Agent
	}
	return ""
}

func (f Files) parts() []string {
	var all []string
	if f.Settings == nil || !f.Settings.DisableEtcd {
		all = append(all, PartEtcd)
	}
	if f.Settings == nil || !f.Settings.DisableAPIServer {
		all = append(all, PartControls)
	}
	return all
}

// node is whom the kubelet's certificate was issued to.
func (f Files) node() string {
	data, err := os.ReadFile(f.agent("client-kubelet.crt"))
	if err != nil {
		return ""
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return ""
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	name, _ := strings.CutPrefix(c.Subject.CommonName, "system:node:")
	return name
}

// trust tells the authority in force and why it is believed: a hash in the token is the last word, and a machine that
// took the first authority it saw remembers that it did.
func (f Files) trust(role string) (Trust, error) {
	ca, pin := f.agent("server-ca.crt"), f.agent("etc", trust.PinName)
	if role == Server {
		ca, pin = f.server("tls", "server-ca.crt"), f.server("etc", trust.PinName)
	}
	var t Trust
	bundle, err := os.ReadFile(ca)
	if err == nil {
		t.Authority, err = token.CAHash(bundle)
	}
	switch hash, pinErr := trust.LoadPin(pin); {
	case f.Settings != nil && pinned(f.Settings.Token):
		t.How = ByToken
	case pinErr != nil:
		return t, pinErr
	case hash != "":
		t.How = ByFirstUse
		if t.Authority == "" {
			t.Authority = hash
		}
	case t.Authority == "" || f.Settings == nil:
	case role == Server && f.Settings.Server == "":
		t.How = ByOwn
	default:
		t.How = ByEarlier
	}
	return t, err
}

func pinned(s token.Secret) bool {
	t, err := token.Parse(s)
	return err == nil && t.CAHash != ""
}

// next finds the leaf that is renewed first.
func next(all []certificate.Entry) *Renewal {
	var first *Renewal
	for _, e := range all {
		if !e.Renews.IsZero() && (first == nil || e.Renews.Before(first.At)) {
			first = &Renewal{File: e.File, At: e.Renews}
		}
	}
	return first
}

func (f Files) etcd() (*Etcd, error) {
	id, err := etcd.ReadIdentity(f.DataDir)
	if errors.Is(err, etcd.ErrNoIdentity) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	e := &Etcd{Member: ID(id.Member), Cluster: ID(id.Cluster)}
	if name, err := os.ReadFile(filepath.Join(etcd.Dir(f.DataDir), "name")); err == nil {
		e.Name = strings.TrimSpace(string(name))
	}
	if !f.Idle {
		return e, nil
	}
	known, err := etcd.ReadKnown(f.DataDir)
	if errors.Is(err, etcd.ErrInUse) { // by a pod that has outlived the supervisor
		return e, nil
	}
	for _, m := range known.Members {
		e.Members = append(e.Members, Member{Name: m.Name, ID: ID(m.ID), Role: MemberRole(m.IsLearner)})
		if m.ID == id.Member {
			e.Role = MemberRole(m.IsLearner)
		}
	}
	slices.SortFunc(e.Members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return e, err
}

// ID is how etcd writes the number of a member or of a cluster.
func ID(id uint64) string { return strconv.FormatUint(id, 16) }

// MemberRole is what a member is to its cluster.
func MemberRole(learner bool) string {
	if learner {
		return Learner
	}
	return Voter
}

func (f Files) reset() (*Reset, error) {
	var r Reset
	epoch, err := clusterreset.LoadEpoch(f.DataDir)
	if epoch.Number > 0 {
		r.Epoch, r.At = epoch.Number, time.Unix(epoch.Number, 0).UTC()
	}
	interrupted, e1 := clusterreset.Interrupted(f.DataDir)
	pending, e2 := clusterreset.Pending(f.DataDir)
	away, e3 := member.ToJoin(f.DataDir)
	asked := f.Settings != nil && f.Settings.ClusterReset
	switch {
	case interrupted:
		r.State = "a reset was cut off; the next start finishes it"
	case pending && asked:
		r.State = "the cluster has been reset to this server; take cluster-reset out of the settings"
	case pending:
		r.State = "the cluster has been reset to this server, which tells kube-apiserver as soon as that serves"
	case asked:
		r.State = "the settings ask for a reset, which the next start of the machine makes"
	case len(away) > 0:
		r.State = "the data of this server was put away; it joins by " + strings.Join(away, ", ")
	}
	old, e4 := filepath.Glob(filepath.Join(filepath.Dir(etcd.Dir(f.DataDir)), "etcd-old-*"))
	for _, path := range old {
		r.OldData = append(r.OldData, filepath.Base(path))
	}
	err = errors.Join(err, e1, e2, e3, e4)
	if r.Epoch == 0 && r.State == "" && len(r.OldData) == 0 {
		return nil, err
	}
	return &r, err
}

func (f Files) snapshot(node string) (*Snapshot, error) {
	dir := f.server("db", "snapshots")
	if f.Settings != nil && f.Settings.SnapshotDir != "" {
		dir = f.Settings.SnapshotDir
	}
	last, ok, err := etcdsnapshot.Newest(dir, node)
	if !ok {
		return nil, err
	}
	return &Snapshot{Name: last.Name, Location: last.Location, Created: last.Created, Bytes: last.Size, Verified: true}, err
}
