// Package storetest is the contract of bootstrapdata.Store as a test suite, which the real store passes, and Memory,
// the store that other packages' tests use, passes too. It is linked into tests only.
package storetest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"keelson/node/bootstrapdata"
)

// Memory is a store in memory. Err, where set, is what every call answers.
type Memory struct {
	mu       sync.Mutex // guards what follows
	records  map[string]bootstrapdata.Record
	revision int64
	Err      error
}

// List implements bootstrapdata.Store.
func (m *Memory) List(_ context.Context, prefix string) ([]bootstrapdata.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []bootstrapdata.Record
	for _, r := range m.records {
		if strings.HasPrefix(r.Key, prefix) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b bootstrapdata.Record) int { return strings.Compare(a.Key, b.Key) })
	return all, m.Err
}

// Put implements bootstrapdata.Store.
func (m *Memory) Put(_ context.Context, key, value string, revision int64) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Err != nil || m.records[key].Revision != revision {
		return false, m.Err
	}
	if m.records == nil {
		m.records = map[string]bootstrapdata.Record{}
	}
	m.revision++
	m.records[key] = bootstrapdata.Record{Key: key, Value: value, Revision: m.revision}
	return true, nil
}

// Run checks that s, which must be empty, is a store.
func Run(t *testing.T, s bootstrapdata.Store) {
	ctx := t.Context()
	list := func(prefix string) []bootstrapdata.Record {
		t.Helper()
		all, err := s.List(ctx, prefix)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	put := func(key, value string, revision int64, want bool) {
		t.Helper()
		if got, err := s.Put(ctx, key, value, revision); err != nil || got != want {
			t.Fatalf("Put(%s, %s, %d): got %v, %v; want %v", key, value, revision, got, err, want)
		}
	}
	if all := list("/a/"); len(all) != 0 {
		t.Fatalf("the store is not empty: %v", all)
	}
	put("/a/1", "", 0, true)
	put("/a/1", "again", 0, false) // create does not replace, not even an empty value
	put("/b/1", "other", 0, true)
	all := list("/a/")
	if len(all) != 1 || all[0].Key != "/a/1" || all[0].Value != "" || all[0].Revision == 0 {
		t.Fatalf("list: %+v", all)
	}
	put("/a/1", "two", all[0].Revision+100, false)
	put("/a/1", "two", all[0].Revision, true)
	put("/a/1", "three", all[0].Revision, false) // the revision has moved on
	put("/a/2", "x", 5, false)                   // no such key
	if all = list("/a/"); len(all) != 1 || all[0].Value != "two" {
		t.Fatalf("list: %+v", all)
	}
}
