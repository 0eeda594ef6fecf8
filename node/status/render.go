package status

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Render writes a report for people (text) or programs (json).
func Render(r Report, format string) ([]byte, error) {
	switch format {
	case "json":
		out, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("render status: %w", err)
		}
		return append(out, '\n'), nil
	case "text":
		p := &page{now: r.Now}
		p.report(r)
		return []byte(p.String()), nil
	}
	return nil, fmt.Errorf("output %q is neither text nor json", format)
}

// page is text in two columns.
type page struct {
	strings.Builder
	now  time.Time
	name string
}

// line writes under a name, which is shown once.
func (p *page) line(name, format string, args ...any) {
	shown := name
	if name == p.name {
		shown = ""
	}
	p.name = name
	fmt.Fprintf(p, "%-14s%s\n", shown, fmt.Sprintf(format, args...))
}

func (p *page) report(r Report) {
	switch r.State {
	case Up:
		p.line("node", "up since %s, version %s", stamp(r.Started), r.Version)
	case Starting:
		p.line("node", "starting since %s, version %s", stamp(r.Started), r.Version)
	default:
		p.line("node", "does not run, version %s; what follows is what its files say", r.Version)
	}
	for _, w := range r.Waiting {
		text := fmt.Sprintf("%s, for %s", w.For, age(p.now.Sub(w.Since)))
		if w.Reason != "" {
			text += ": " + oneLine(w.Reason)
		}
		p.line("waits for", "%s", text)
	}
	switch {
	case r.Role == "":
		p.line("role", "none yet: there is nothing of a cluster in the data folder")
	case len(r.Parts) > 0:
		p.line("role", "%s (%s)", r.Role, strings.Join(r.Parts, ", "))
	default:
		p.line("role", "%s", r.Role)
	}
	if r.Node != "" {
		p.line("name", "%s", r.Node)
	}
	if r.Join != "" {
		p.line("joins by", "%s", r.Join)
	}
	for _, b := range r.Balancers {
		p.line("balancer", "%s at %s", b.Name, b.Address)
		for _, s := range b.Servers {
			p.line("balancer", "  %s %s, %d connections", s.Address, strings.ToLower(s.State), s.Connections)
		}
	}
	if r.Trust.Authority != "" {
		p.line("trust", "authority %s%s", r.Trust.Authority, why(r.Trust.How))
	}
	if !r.TokenBefore.IsZero() {
		p.line("token", "rotated; the one before is honoured until %s", stamp(r.TokenBefore))
	}
	if r.Etcd != nil {
		p.etcd(*r.Etcd)
	}
	if s := r.Snapshot; s != nil {
		p.snapshot(*s)
	} else if r.Role == Server && slices.Contains(r.Parts, PartEtcd) {
		p.line("snapshot", "none on this server")
	}
	if r.Reset != nil {
		p.reset(*r.Reset)
	}
	if d := r.Disk; d != nil {
		p.line("disk", "%d of %d MiB free at %s, %d MiB more in reserve", d.Free>>20, d.Total>>20, d.Path, d.Reserve>>20)
	}
	p.certificates(r)
	for _, one := range r.Reasons {
		if !one.shownElsewhere() {
			p.line("not well", "%s: %s", one.Code, oneLine(one.Message))
		}
	}
	for _, text := range r.UserData {
		p.line("user-data", "%s", oneLine(text))
	}
	for _, text := range r.Problems {
		p.line("problem", "%s", oneLine(text))
	}
}

func why(how string) string {
	switch how {
	case ByToken:
		return ", named by the token"
	case ByFirstUse:
		return ", trusted on first use: a token with its hash would leave nothing to chance"
	case ByOwn:
		return ", this cluster's own"
	case ByEarlier:
		return ", known since an earlier start"
	}
	return ""
}

func (p *page) etcd(e Etcd) {
	if e.Member != "" || e.Role != "" {
		text := e.Role
		if text == "" {
			text = "member"
		}
		if e.Leader {
			text += " and leader"
		}
		p.line("etcd", "%s: %s (%s) of cluster %s", text, e.Name, e.Member, e.Cluster)
	}
	for _, m := range e.Members {
		text := m.Role
		if m.Leader {
			text += ", leader"
		}
		p.line("etcd", "  %s (%s): %s", m.Name, m.ID, text)
	}
	if e.Error != "" {
		p.line("etcd", "does not answer: %s", oneLine(e.Error))
	}
}

func (p *page) snapshot(s Snapshot) {
	if s.Name != "" {
		checked := ""
		if s.Verified {
			checked = ", verified"
		}
		p.line("snapshot", "%s, %s: %s (%d bytes%s)", stamp(s.Created), age(p.now.Sub(s.Created))+" old", strings.TrimPrefix(s.Location, "file://"), s.Bytes, checked)
	}
	if s.Remote != "" {
		p.line("snapshot", "  and %s", s.Remote)
	}
	if s.Error != "" {
		p.line("snapshot", "failed at %s: %s", stamp(s.Failed), oneLine(s.Error))
	}
}

func (p *page) reset(r Reset) {
	if r.Epoch > 0 {
		p.line("reset", "the cluster was reset at %s", stamp(r.At))
	}
	if r.State != "" {
		p.line("reset", "%s", r.State)
	}
	if r.Rejoined {
		p.line("reset", "the cluster was reset without this server, which put its data away and joined anew")
	}
	if len(r.OldData) > 0 {
		p.line("reset", "data put away: %s", strings.Join(r.OldData, ", "))
	}
}

func (p *page) certificates(r Report) {
	if r.NextRenewal != nil {
		p.line("certificates", "next renewal %s: %s", stamp(r.NextRenewal.At), r.NextRenewal.File)
	}
	for _, e := range r.Certificates {
		mark := ""
		if e.Status != "ok" {
			mark = " (" + e.Status + ")"
		}
		p.line("certificates", "  ends %s%s  %s", stamp(e.Ends), mark, filepath.Clean(e.File))
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// age is how long ago, as short as it is still of use.
func age(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// oneLine keeps what was said elsewhere from moving the columns.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
