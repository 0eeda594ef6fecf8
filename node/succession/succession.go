// Package succession puts a new set of certificate authorities in the place of a cluster's present one: what
// `node certificate rotate-ca` sends to /v1-rke2/cert/cacerts (k3s pkg/server/handlers/cert.go).
//
// It judges the set and writes it into the cluster's bootstrap record; it issues nothing. Servers follow the record
// (bootstrapdata.Reconcile) and issue new leaves with package pki, agents fetch theirs when they renew. It takes the
// files of the record and gives the files of the next one.
package succession

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keelson/node/bootstrapdata"
	"keelson/node/pki"
	"keelson/node/token"
)

// serviceKey is the entry of the service account keys.
const serviceKey = "ServiceKey"

// authorities lists the entries of the record that are a bundle; each has its key under the name with Key behind it.
func authorities() []string {
	return []string{"ServerCA", "ClientCA", "RequestHeaderCA", "ETCDServerCA", "ETCDPeerCA"}
}

// Check judges next against the set in force and returns the record that holds it: what next leaves out stays. With
// force a set passes whose chains lead nowhere: everything that trusts the old authorities is then cut off, and the
// whole cluster must be started anew.
func Check(current, next bootstrapdata.Data, now time.Time, force bool) (bootstrapdata.Data, error) {
	if err := onlyAuthorities(next); err != nil {
		return nil, err
	}
	record := bootstrapdata.Data{}
	for name, f := range current {
		record[name] = f
	}
	for name, f := range next {
		if len(f.Content) > 0 {
			record[name] = bootstrapdata.File{Timestamp: now, Content: f.Content}
		}
	}
	var problems []error
	for _, name := range authorities() {
		bundle, key := record[name].Content, record[name+"Key"].Content
		var err error
		if force {
			err = pki.CheckAuthority(bundle, key)
		} else {
			err = pki.CheckSuccessor(current[name].Content, bundle, key, now)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", path(name), err))
		}
	}
	if !force {
		if err := pki.CheckServiceKeys(current[serviceKey].Content, record[serviceKey].Content); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", path(serviceKey), err))
		}
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("refuse new authorities: %w", errors.Join(problems...))
	}
	return record, nil
}

// onlyAuthorities refuses entries that no succession may touch: a rotation that also replaced the password file or the
// encryption key would lose what only those open.
func onlyAuthorities(next bootstrapdata.Data) error {
	if len(next) == 0 {
		return errors.New("refuse new authorities: there are none")
	}
	var others []string
	for name := range next {
		base := strings.TrimSuffix(name, "Key")
		if name != serviceKey && !slices.Contains(authorities(), name) && !slices.Contains(authorities(), base) {
			others = append(others, name)
		}
	}
	if len(others) > 0 {
		slices.Sort(others)
		return fmt.Errorf("refuse new authorities: %s cannot be replaced with them; leave it out", strings.Join(others, ", "))
	}
	return nil
}

// path is what the operator calls an entry.
func path(name string) string {
	for _, e := range bootstrapdata.Entries() {
		if e.Name == name {
			return e.Path
		}
	}
	return name
}

// Make makes a successor of every authority in force, and a new service account key before the present ones.
func Make(current bootstrapdata.Data, now time.Time) (bootstrapdata.Data, error) {
	next := bootstrapdata.Data{}
	for _, name := range authorities() {
		bundle, key, err := pki.Succeed(current[name].Content, current[name+"Key"].Content, now)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path(name), err)
		}
		next[name] = bootstrapdata.File{Timestamp: now, Content: bundle}
		next[name+"Key"] = bootstrapdata.File{Timestamp: now, Content: key}
	}
	keys, err := pki.SucceedServiceKey(current[serviceKey].Content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path(serviceKey), err)
	}
	next[serviceKey] = bootstrapdata.File{Timestamp: now, Content: keys}
	return next, nil
}

// Apply checks plain, the JSON that a client sent, against the cluster's record and replaces the record with it.
func Apply(ctx context.Context, s bootstrapdata.Transactor, password token.Secret, plain []byte, now time.Time, force bool) (bootstrapdata.Data, error) {
	next, err := bootstrapdata.Decode(plain)
	if err != nil {
		return nil, err
	}
	return bootstrapdata.Replace(ctx, s, password, func(current bootstrapdata.Data) (bootstrapdata.Data, error) {
		return Check(current, next, now, force)
	})
}
