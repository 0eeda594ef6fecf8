package bootstrapdata_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/storetest"
)

// racing is a store into which another server writes just before we do.
type racing struct {
	*storetest.Memory
	first string // the other server's value
}

func (r *racing) Commit(ctx context.Context, expect, put []bootstrapdata.Record, remove []string) (bool, error) {
	if r.first != "" {
		other := r.first
		r.first = ""
		if _, err := r.Memory.Put(ctx, expect[0].Key, other, expect[0].Revision); err != nil {
			return false, err
		}
	}
	return r.Memory.Commit(ctx, expect, put, remove)
}

// TestTwoFirstServers: the one that comes second takes over what the first has written, and loses its own.
func TestTwoFirstServers(t *testing.T) {
	ours, theirs := server(t), server(t)
	write(t, filepath.Join(theirs, "tls/server-ca.crt"), "theirs")
	data, err := bootstrapdata.Collect(theirs)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := data.Encode()
	if err != nil {
		t.Fatal(err)
	}
	value, err := bootstrapdata.Encrypt("pass", plain)
	if err != nil {
		t.Fatal(err)
	}
	_, err = bootstrapdata.Sync(t.Context(), &racing{&storetest.Memory{}, value}, "pass", ours)
	// A server that has made authorities of its own must not mix them with the others'.
	var conflict *bootstrapdata.ErrConflict
	if !errors.As(err, &conflict) || !slices.Equal(conflict.Paths, []string{filepath.Join(ours, "tls/server-ca.crt")}) {
		t.Errorf("with authorities of its own: got %v", err)
	}
	empty := t.TempDir()
	store := &storetest.Memory{}
	if _, err := store.Put(t.Context(), bootstrapdata.Key("pass"), value, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := bootstrapdata.Sync(t.Context(), store, "pass", empty); err != nil {
		t.Fatal(err)
	}
	if got := read(t, empty, "tls/server-ca.crt"); got != "theirs" {
		t.Errorf("an empty server: got %q", got)
	}
}

// TestConflictWords: a person must learn which file and what to do.
func TestConflictWords(t *testing.T) {
	err := &bootstrapdata.ErrConflict{Paths: []string{"/a", "/b"}}
	for _, want := range []string{"/a, /b", "changed outside of the cluster", "move the files away and restart"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want %q in it", err, want)
		}
	}
}

// TestRecordsOfOtherVersions: a name that we do not know is left alone, one that is not in the record stays on disk.
func TestRecordsOfOtherVersions(t *testing.T) {
	dir := server(t)
	record, err := bootstrapdata.Collect(dir)
	if err != nil {
		t.Fatal(err)
	}
	delete(record, "IPSECKey")
	record["Future"] = bootstrapdata.File{Content: []byte("x")}
	if paths, err := bootstrapdata.Reconcile(dir, record); err != nil || len(paths) != 0 {
		t.Errorf("wrote %v, %v", paths, err)
	}
	if got := read(t, dir, "cred/ipsec.psk"); got != "IPSECKey" {
		t.Errorf("a file that the record lacks: got %q", got)
	}
}

// TestFilesWithoutATime are written with the time of the writing.
func TestFilesWithoutATime(t *testing.T) {
	dir := t.TempDir()
	paths, err := bootstrapdata.Reconcile(dir, bootstrapdata.Data{"ServerCA": {Content: []byte("x")}})
	if err != nil || len(paths) != 1 {
		t.Fatalf("wrote %v, %v", paths, err)
	}
	if info, err := os.Stat(paths[0]); err != nil || info.ModTime().Year() < 2000 || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
}

// TestBrokenMemoryIsTheSafeReading: with a memory that cannot be read every difference is a conflict.
func TestBrokenMemoryIsTheSafeReading(t *testing.T) {
	for name, text := range map[string]string{"no JSON": "{", "a list": "[]", "empty": ""} {
		dir := server(t)
		record, err := bootstrapdata.Collect(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bootstrapdata.Reconcile(dir, record); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "cred/.bootstrap-agreed.json"), text)
		record["ClientCA"] = bootstrapdata.File{Content: []byte("rotated")}
		var conflict *bootstrapdata.ErrConflict
		if _, err := bootstrapdata.Reconcile(dir, record); !errors.As(err, &conflict) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestUnreadableFiles are told by their path and never taken for absent.
func TestUnreadableFiles(t *testing.T) {
	dir := server(t)
	path := filepath.Join(dir, "tls/server-ca.key")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := bootstrapdata.Collect(dir); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("collect: got %v", err)
	}
	if _, err := bootstrapdata.Serve(t.Context(), &storetest.Memory{}, "pass", dir); err == nil {
		t.Error("serve: no error")
	}
	if _, err := bootstrapdata.Sync(t.Context(), &storetest.Memory{}, "pass", dir); err == nil {
		t.Error("sync: no error")
	}
}
