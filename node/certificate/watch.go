package certificate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"
)

// What is told of certificates: who tells, and in which words for programs (k3s pkg/certmonitor).
const (
	Monitor        = "rke2-cert-monitor"
	ReasonLeaf     = "CertificateExpirationWarning"
	ReasonCA       = "CACertificateExpirationWarning"
	ReasonOK       = "CertificateExpirationOK"
	okText         = "Node and Certificate Authority certificates managed by rke2 are OK"
	leafText       = "Node certificates require attention - their renewal, which needs no restart, is late; node's log says why: "
	authorityText  = "Certificate authority certificates require attention - plan their rotation (node certificate rotate-ca): "
	watchEvery     = 30 * time.Minute
	mostCharacters = 1000
)

// Watch tells again and again of certificates that near their end, and once that none does: at the start, and when a
// warning is over.
type Watch struct {
	DataDir string
	// Tell takes what there is to say: a warning, or not.
	Tell func(warning bool, reason, text string)
	Log  *slog.Logger
}

// Run looks at once and then every half hour (k3s: the same), until ctx ends.
func (w Watch) Run(ctx context.Context) error {
	if w.Tell == nil || w.Log == nil || w.DataDir == "" {
		return errors.New("watch of certificates: DataDir, Tell and Log must be set")
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for calm := false; ; {
		calm = w.look(time.Now(), calm)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look tells what there is now, and whether that was nothing bad. calm is what the look before came to.
func (w Watch) look(now time.Time, calm bool) bool {
	all, err := Look(w.DataDir, now)
	if err != nil {
		w.Log.Warn("watch of certificates", "error", err)
		return calm // what cannot be read is told by those that need it
	}
	var leaves, authorities []string
	for _, e := range all {
		if e.Status == "ok" {
			continue
		}
		text := w.name(e)
		w.Log.Warn("certificate near its end", "file", e.File, "subject", e.Subject, "ends", e.Ends)
		if e.authority() {
			authorities = append(authorities, text)
		} else {
			leaves = append(leaves, text)
		}
	}
	if len(leaves) > 0 {
		w.Tell(true, ReasonLeaf, leafText+join(leaves))
	}
	if len(authorities) > 0 {
		w.Tell(true, ReasonCA, authorityText+join(authorities))
	}
	ok := len(leaves)+len(authorities) == 0
	if ok && !calm {
		w.Tell(false, ReasonOK, okText)
	}
	return ok
}

func (w Watch) name(e Entry) string {
	file, err := filepath.Rel(w.DataDir, e.File)
	if err != nil {
		file = e.File
	}
	verb := "ends"
	if e.Status == "expired" {
		verb = "ended"
	}
	return fmt.Sprintf("%s: %s %s at %s", file, e.Subject, verb, e.Ends.UTC().Format(time.RFC3339))
}

func (e Entry) authority() bool { return e.Renews.IsZero() }

// join lists as many as an event has room for, and counts the others.
func join(all []string) string {
	out := all[0]
	for i, one := range all[1:] {
		if len(authorityText)+len(out)+len(one) > mostCharacters-20 {
			return fmt.Sprintf("%s, and %d more", out, len(all)-1-i)
		}
		out = strings.Join([]string{out, one}, ", ")
	}
	return out
}
