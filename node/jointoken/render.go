package jointoken

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

// listed is a token as kubeadm and RKE2 print it in JSON.
type listed struct {
	Token       string     `json:"token"`
	Description string     `json:"description,omitempty"`
	Expires     *time.Time `json:"expires,omitempty"`
	Usages      []string   `json:"usages,omitempty"`
	Groups      []string   `json:"groups,omitempty"`
}

// Render prints tokens as a table, which holds no secret, or as JSON, which has the whole tokens.
func Render(all []Token, output string, now time.Time) ([]byte, error) {
	switch output {
	case "text":
		return table(all, now), nil
	case "json":
		out := []listed{}
		for _, t := range all {
			l := listed{Token: t.ID + "." + t.Secret.Reveal(), Description: t.Description, Usages: t.Usages, Groups: t.Groups}
			if !t.Expires.IsZero() {
				l.Expires = &t.Expires
			}
			out = append(out, l)
		}
		text, err := json.Marshal(out)
		if err != nil {
			return nil, fmt.Errorf("render bootstrap tokens: %w", err)
		}
		return append(text, '\n'), nil
	}
	return nil, fmt.Errorf("output %q is not text or json", output)
}

func table(all []Token, now time.Time) []byte {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 10, 4, 3, ' ', 0)
	line := func(cells ...string) { fmt.Fprintln(w, strings.Join(cells, "\t")) }
	line("TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS")
	for _, t := range all {
		ttl, expires := "<forever>", "<never>"
		if !t.Expires.IsZero() {
			ttl, expires = "<expired>", t.Expires.Format(time.RFC3339)
			if left := t.Expires.Sub(now); left > 0 {
				ttl = duration.ShortHumanDuration(left)
			}
		}
		// A description may hold anything; it must not move the table.
		line(t.ID, ttl, expires, orNone(strings.Join(t.Usages, ",")), orNone(strings.Join(strings.Fields(t.Description), " ")), orNone(strings.Join(t.Groups, ",")))
	}
	_ = w.Flush() // a buffer takes all bytes
	return b.Bytes()
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}
