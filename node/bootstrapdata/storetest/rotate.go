package storetest

import (
	"context"
	"maps"
	"strings"
	"testing"

	"keelson/node/bootstrapdata"
)

// Commit implements bootstrapdata.Transactor.
func (m *Memory) Commit(_ context.Context, expect, put []bootstrapdata.Record, remove []string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Err != nil {
		return false, m.Err
	}
	for _, r := range expect {
		if m.records[r.Key].Revision != r.Revision {
			return false, nil
		}
	}
	if m.records == nil {
		m.records = map[string]bootstrapdata.Record{}
	}
	m.revision++
	for _, r := range put {
		m.records[r.Key] = bootstrapdata.Record{Key: r.Key, Value: r.Value, Revision: m.revision}
	}
	for _, key := range remove {
		delete(m.records, key)
		if strings.HasSuffix(key, "/") {
			maps.DeleteFunc(m.records, func(have string, _ bootstrapdata.Record) bool { return strings.HasPrefix(have, key) })
		}
	}
	return true, nil
}

// RunTransactor checks that s, which must hold nothing below /t/, writes several keys at once.
func RunTransactor(t *testing.T, s bootstrapdata.Transactor) {
	type record = bootstrapdata.Record
	have := func() map[string]record {
		t.Helper()
		all, err := s.List(t.Context(), "/t/")
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]record{}
		for _, r := range all {
			out[r.Key] = r
		}
		return out
	}
	commit := func(want bool, expect, put []record, remove ...string) {
		t.Helper()
		if got, err := s.Commit(t.Context(), expect, put, remove); err != nil || got != want {
			t.Fatalf("commit: got %v, %v; want %v", got, err, want)
		}
	}
	commit(true, []record{{Key: "/t/a"}, {Key: "/t/b"}}, []record{{Key: "/t/a", Value: "1"}, {Key: "/t/b", Value: "2"}})
	first := have()
	if len(first) != 2 || first["/t/a"].Value != "1" || first["/t/b"].Value != "2" || first["/t/a"].Revision == 0 {
		t.Fatalf("got %v", first)
	}
	commit(false, []record{{Key: "/t/a"}}, []record{{Key: "/t/c", Value: "3"}}, "/t/b") // it exists
	commit(false, []record{first["/t/a"], {Key: "/t/b", Revision: first["/t/b"].Revision + 100}}, nil, "/t/a", "/t/b")
	commit(false, []record{{Key: "/t/none", Revision: 7}}, nil, "/t/a")
	if got := have(); len(got) != 2 {
		t.Fatalf("a commit that failed has changed something: %v", got)
	}
	commit(true, []record{first["/t/a"], {Key: "/t/c"}}, []record{{Key: "/t/c", Value: "3"}}, "/t/a", "/t/none")
	got := have()
	if len(got) != 2 || got["/t/c"].Value != "3" || got["/t/b"] != first["/t/b"] {
		t.Fatalf("got %v", got)
	}
	commit(true, nil, []record{{Key: "/t/x/1"}, {Key: "/t/x/2"}, {Key: "/t/xx"}})
	commit(true, nil, nil, "/t/x/", "/t/xx")
	if got = have(); len(got) != 2 {
		t.Fatalf("a folder was not removed: %v", got)
	}
	commit(true, []record{got["/t/c"]}, nil, "/t/c", "/t/b")
	if got := have(); len(got) != 0 {
		t.Fatalf("got %v", got)
	}
}
