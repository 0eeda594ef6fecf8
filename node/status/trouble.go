package status

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"keelson/node/reserve"
)

// Codes of reasons. A code keeps its meaning; programs may go by it.
const (
	CodeStopped     = "SupervisorStopped"     // node does not run
	CodeWaits       = "StartWaits"            // a step of the start has said why it cannot go on; subject: the step
	CodeEtcd        = "EtcdNotAnswering"      // this server's member does not tell
	CodeSnapshot    = "SnapshotFailed"        // the last try
	CodeCertificate = "CertificateExpiring"   // subject: the file
	CodeExpired     = "CertificateExpired"    // subject: the file
	CodeCA          = "CACertificateExpiring" // subject: the file
	CodeProblem     = "StatusIncomplete"      // something of this report could not be read
	CodeDiskLow     = reserve.ReasonLow       // the disk is nearly full
	CodeDiskFull    = reserve.ReasonReleased  // and the reserve is given up
)

// Trouble is one thing that is not as it should be, whatever part of the node it is about.
type Trouble struct {
	Code    string    `json:"code"`
	Subject string    `json:"subject,omitempty"`
	Message string    `json:"message"`
	Since   time.Time `json:"since,omitzero"`
}

// Conclude puts into Reasons what the rest of the report comes to, beside what parts of the supervisor have put there.
func (r *Report) Conclude() {
	add := func(code, subject, message string, since time.Time) {
		r.Reasons = append(r.Reasons, Trouble{code, subject, message, since})
	}
	if r.State == Stopped {
		add(CodeStopped, "", "node does not run", time.Time{})
	}
	for _, w := range r.Waiting {
		if w.Reason != "" {
			add(CodeWaits, w.For, w.Reason, w.Since)
		}
	}
	if r.Etcd != nil && r.Etcd.Error != "" {
		add(CodeEtcd, r.Etcd.Name, r.Etcd.Error, time.Time{})
	}
	if r.Snapshot != nil && r.Snapshot.Error != "" {
		add(CodeSnapshot, "", r.Snapshot.Error, r.Snapshot.Failed)
	}
	if r.Disk != nil && r.Disk.Alarm != "" {
		add(r.Disk.Alarm, r.Disk.Path, r.Disk.Text, r.Disk.Since)
	}
	for _, e := range r.Certificates {
		text := e.Subject + " ends at " + stamp(e.Ends)
		switch {
		case e.Status == "expired":
			add(CodeExpired, e.File, text, e.Ends)
		case e.Status == "warning" && e.Renews.IsZero():
			add(CodeCA, e.File, text, time.Time{})
		case e.Status == "warning":
			add(CodeCertificate, e.File, text, e.Renews)
		}
	}
	for _, text := range r.Problems {
		add(CodeProblem, "", text, time.Time{})
	}
	slices.SortStableFunc(r.Reasons, func(a, b Trouble) int {
		return cmp.Or(strings.Compare(a.Code, b.Code), strings.Compare(a.Subject, b.Subject))
	})
}

// shownElsewhere tells whether the text for people says it already.
func (r Trouble) shownElsewhere() bool {
	return slices.Contains([]string{CodeStopped, CodeWaits, CodeEtcd, CodeSnapshot, CodeCertificate, CodeExpired, CodeCA, CodeProblem}, r.Code)
}

// disk looks at the file system of the data folder, which is not there before the first start.
func (f Files) disk() (*Disk, error) {
	d, err := reserve.Look(f.DataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	out := &Disk{Path: f.DataDir, Total: d.Total, Free: d.Free, Reserve: d.Reserve}
	if d.Low() {
		out.Alarm, out.Text = reserve.ReasonLow, "the disk is nearly full"
	}
	return out, nil
}

// OfDisk has the supervisor's own view shown, which knows since when and whether the reserve was given up.
func OfDisk(w *reserve.Watch) func(context.Context, *Report) {
	return func(_ context.Context, r *Report) {
		s, known := w.State()
		if !known || r.Disk == nil {
			return
		}
		r.Disk.Alarm, r.Disk.Text, r.Disk.Since = "", "", time.Time{}
		if s.Reason != reserve.ReasonEnough {
			r.Disk.Alarm, r.Disk.Text, r.Disk.Since = s.Reason, s.Text, s.Since
		}
	}
}
