package bootstrapdata_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/storetest"
)

func load(t *testing.T, s bootstrapdata.Transactor) bootstrapdata.Data {
	t.Helper()
	d, err := bootstrapdata.Load(t.Context(), s, "pass")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// rotate replaces one file of the record.
func rotate(content string) func(bootstrapdata.Data) (bootstrapdata.Data, error) {
	return func(d bootstrapdata.Data) (bootstrapdata.Data, error) {
		d["ServerCA"] = bootstrapdata.File{Content: []byte(content)}
		return d, nil
	}
}

// A replaced record is one generation later, and the servers that followed the one before follow it too.
func TestReplaceCountsGenerations(t *testing.T) {
	s := &storetest.Memory{}
	dir := server(t)
	sync(t, s, dir)
	if got := load(t, s).Generation(); got != 1 {
		t.Errorf("first record: got generation %d, want 1", got)
	}
	next, err := bootstrapdata.Replace(t.Context(), s, "pass", rotate("new"))
	if err != nil || next.Generation() != 2 {
		t.Fatalf("got generation %d, %v, want 2", next.Generation(), err)
	}
	if got := sync(t, s, dir); len(got) != 1 || got[0] != "tls/server-ca.crt" {
		t.Errorf("following: wrote %v, want the replaced file alone", got)
	}
	if got := read(t, dir, "tls/server-ca.crt"); got != "new" {
		t.Errorf("got %q", got)
	}
	if got := load(t, s).Generation(); got != 2 {
		t.Errorf("following wrote a generation of its own: %d", got)
	}
}

// A datastore that was restored to an earlier record must not take back what this server has followed.
func TestOlderGenerationIsRefused(t *testing.T) {
	s := &storetest.Memory{}
	dir := server(t)
	sync(t, s, dir)
	old := load(t, s)
	if _, err := bootstrapdata.Replace(t.Context(), s, "pass", rotate("new")); err != nil {
		t.Fatal(err)
	}
	sync(t, s, dir)
	_, err := bootstrapdata.Reconcile(dir, old)
	if !errors.Is(err, bootstrapdata.ErrOlder) || !strings.Contains(err.Error(), "record 1, this server 2") {
		t.Errorf("got %v, want %v with both generations", err, bootstrapdata.ErrOlder)
	}
	if got := read(t, dir, "tls/server-ca.crt"); got != "new" {
		t.Errorf("the older record was written: %q", got)
	}
}

// RKE2 leaves the generation out of what it writes: its records are judged by what they hold.
func TestRecordWithoutGeneration(t *testing.T) {
	s := &storetest.Memory{}
	dir := server(t)
	sync(t, s, dir)
	foreign := load(t, s)
	delete(foreign, "KeelsonGeneration")
	foreign["ServerCA"] = bootstrapdata.File{Content: []byte("by rke2")}
	if got := foreign.Generation(); got != 0 {
		t.Fatalf("got generation %d", got)
	}
	if _, err := bootstrapdata.Reconcile(dir, foreign); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir, "tls/server-ca.crt"); got != "by rke2" {
		t.Errorf("got %q", got)
	}
	broken := bootstrapdata.Data{"KeelsonGeneration": {Content: []byte("x")}}
	if got := broken.Generation(); got != 0 {
		t.Errorf("broken generation: got %d, want 0", got)
	}
}

func TestReplaceErrors(t *testing.T) {
	refuse := errors.New("refuse")
	full := func(t *testing.T) *storetest.Memory {
		s := &storetest.Memory{}
		sync(t, s, server(t))
		return s
	}
	for _, c := range []struct {
		name   string
		store  func(t *testing.T) bootstrapdata.Transactor
		change func(bootstrapdata.Data) (bootstrapdata.Data, error)
		want   string
	}{
		{"nothing to replace", func(*testing.T) bootstrapdata.Transactor { return &storetest.Memory{} }, rotate("x"), "no bootstrap data"},
		{"change refuses", func(t *testing.T) bootstrapdata.Transactor { return full(t) },
			func(bootstrapdata.Data) (bootstrapdata.Data, error) { return nil, refuse }, "refuse"},
		{"others are faster each time", func(t *testing.T) bootstrapdata.Transactor { return always{full(t)} }, rotate("x"), "other servers wrote it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := bootstrapdata.Replace(t.Context(), c.store(t), "pass", c.change)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A server without any file has nothing that could be a cluster's record.
func TestEmptyDiskSavesNothing(t *testing.T) {
	s := &storetest.Memory{}
	_, err := bootstrapdata.Sync(t.Context(), s, "pass", filepath.Join(t.TempDir(), "none"))
	if err == nil || !strings.Contains(err.Error(), "none of the files") {
		t.Errorf("got %v", err)
	}
	if _, err := bootstrapdata.Load(t.Context(), s, "pass"); !errors.Is(err, bootstrapdata.ErrNone) {
		t.Errorf("something was saved: %v", err)
	}
}

// A server that comes back to a restored cluster takes its record, older or not, whatever it has changed.
func TestRestoreMakesTheDiskBeTheRecord(t *testing.T) {
	s := &storetest.Memory{}
	dir := server(t)
	sync(t, s, dir)
	old := load(t, s)
	if _, err := bootstrapdata.Replace(t.Context(), s, "pass", rotate("new")); err != nil {
		t.Fatal(err)
	}
	sync(t, s, dir)
	got, err := bootstrapdata.Restore(dir, old)
	if err != nil || len(got) != 1 || read(t, dir, "tls/server-ca.crt") != string(old["ServerCA"].Content) {
		t.Fatalf("wrote %v, %v", got, err)
	}
	if got, err := bootstrapdata.Reconcile(dir, old); err != nil || len(got) != 0 {
		t.Errorf("what was restored is not what was agreed on: %v, %v", got, err)
	}
}
