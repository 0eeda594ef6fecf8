package etcdsnapshot

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"
)

// followWithin is how long the records may take after a Shed: the disk is full, and the cluster may be slow.
const followWithin = 10 * time.Second

// Shed removes snapshots that this server took, oldest first, until enough says that there is space: for a disk that is
// full. The newest stays whatever happens, and so does every file that somebody brought from elsewhere. Each that has a
// name was read back and checked, so the newest is a good one.
func (m *Manager) Shed(ctx context.Context, enough func() bool) (names []string, err error) {
	files, err := m.local(m.Dir)
	if err != nil {
		return nil, err
	}
	files = slices.DeleteFunc(files, func(f File) bool {
		_, ours := ParseName(f.Name, m.NodeName)
		return !ours
	})
	slices.SortFunc(files, func(a, b File) int { return a.Created.Compare(b.Created) })
	var problems []error
	for _, f := range files[:max(0, len(files)-1)] {
		if ctx.Err() != nil || enough() {
			break
		}
		if err := m.remove(m.Dir, f.Name); errors.Is(err, os.ErrNotExist) {
			continue // retention was faster
		} else if err != nil {
			problems = append(problems, err)
			continue
		}
		names = append(names, f.Name)
	}
	if len(names) > 0 {
		ctx, cancel := context.WithTimeout(ctx, followWithin)
		defer cancel()
		m.follow(ctx, nil)
	}
	return names, errors.Join(problems...)
}
