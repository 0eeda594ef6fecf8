// Package certificate knows when each certificate of this machine ends, tells of those that are near it, and asks for the
// change of the cluster's authorities.
//
// It reads the files that node/pki keeps and asks a server through node/trust; it writes nothing itself: leaves are
// renewed by the running supervisor, authorities by the server that is asked. node/command (`node certificate`),
// node/status and node/telemetry show what it finds, node/server and node/agent run its Watch.
package certificate

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"keelson/node/pki"
)

// What a certificate's end means (k3s pkg/certmonitor): a leaf is late inside the window in which it should have been
// renewed, an authority a year before its end.
const (
	leafWindow      = 120 * 24 * time.Hour
	authorityWindow = 365 * 24 * time.Hour
)

// Entry is one certificate of a file.
type Entry struct {
	File    string    `json:"file"`
	Subject string    `json:"subject"`
	Issuer  string    `json:"issuer"`
	Usages  []string  `json:"usages,omitempty"`
	Ends    time.Time `json:"ends"`
	Renews  time.Time `json:"renews,omitzero"` // when a leaf is issued anew, while node runs
	Status  string    `json:"status"`          // ok, warning or expired
}

// Look reads every certificate below the folders of a server and an agent. The chain behind a leaf is left out: it
// stands in the file of its authority.
func Look(dataDir string, now time.Time) ([]Entry, error) {
	var all []Entry
	for _, dir := range []string{filepath.Join(dataDir, "server", "tls"), filepath.Join(dataDir, "agent")} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist) && path == dir: // an agent has no folder of a server
				return nil
			case err != nil:
				return err
			case d.IsDir() && (d.Name() == "containerd" || d.Name() == "temporary-certs"):
				return fs.SkipDir // images of pods; and kube-apiserver's own scraps
			case d.IsDir() || !strings.HasSuffix(path, ".crt"), strings.HasSuffix(path, ".nochain.crt"):
				return nil
			}
			found, err := entries(path, now)
			all = append(all, found...)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("look at certificates: %w", err)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("look at certificates: there are none below %s; is this machine part of a cluster?", dataDir)
	}
	return all, nil
}

func entries(path string, now time.Time) ([]Entry, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []Entry
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if len(out) > 0 && !authorityFile(path) {
			break
		}
		e := Entry{File: path, Subject: c.Subject.String(), Issuer: c.Issuer.String(), Usages: usages(c), Ends: c.NotAfter, Status: status(c, now)}
		if !c.IsCA {
			e.Renews = pki.DueAt(c)
		}
		out = append(out, e)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: it holds no certificate", path)
	}
	return out, nil
}

func authorityFile(path string) bool { return strings.HasSuffix(path, "-ca.crt") }

func status(c *x509.Certificate, now time.Time) string {
	window := leafWindow
	if c.IsCA {
		window = authorityWindow
	}
	switch left := c.NotAfter.Sub(now); {
	case left <= 0:
		return "expired"
	case left <= window:
		return "warning"
	}
	return "ok"
}

func usages(c *x509.Certificate) []string {
	var out []string
	if c.IsCA {
		out = append(out, "CertSign")
	}
	if slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		out = append(out, "ClientAuth")
	}
	if slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		out = append(out, "ServerAuth")
	}
	return out
}

// Render writes entries as a table, or as JSON for programs.
func Render(all []Entry, format string) ([]byte, error) {
	switch format {
	case "json":
		out, err := json.MarshalIndent(all, "", "  ")
		return append(out, '\n'), err
	case "", "text", "table":
		var b strings.Builder
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "FILE\tSUBJECT\tUSAGES\tENDS\tSTATUS")
		for _, e := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.File, e.Subject, strings.Join(e.Usages, ","), e.Ends.UTC().Format(time.RFC3339), e.Status)
		}
		if err := w.Flush(); err != nil {
			return nil, fmt.Errorf("write table: %w", err)
		}
		return []byte(b.String()), nil
	}
	return nil, fmt.Errorf("output format is %q; write text or json", format)
}
