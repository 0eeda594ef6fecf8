package etcdsnapshot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestShed(t *testing.T) {
	names := []string{"etcd-snapshot-cp-1-1700000300", "on-demand-cp-1-1700000100.zip", "etcd-snapshot-cp-1-1700000200", "on-demand-cp-1-1700000400"}
	foreign := []string{"etcd-snapshot-cp-2-1600000000", "from-elsewhere", ".etcd-snapshot-cp-1-1700000000.part.keelson-tmp"}
	for _, c := range []struct {
		name string
		most int // how many removals are enough
		want []string
	}{
		{"enough already", 0, nil},
		{"the oldest, whatever it is called", 1, []string{names[1]}},
		{"two", 2, []string{names[1], names[2]}},
		{"never the newest", 99, []string{names[1], names[2], names[0]}},
	} {
		records := new(recorder)
		m := newManager(t, nilEtcd{}, "x", func(c *Config) { c.Records = records })
		for _, name := range slices.Concat(names, foreign) {
			if err := os.WriteFile(filepath.Join(m.Dir, name), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.saveMetadata(File{Name: names[1], TokenHash: "0123456789ab"}); err != nil {
			t.Fatal(err)
		}
		asked := 0
		got, err := m.Shed(t.Context(), func() bool { asked++; return asked > c.most })
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, %v, want %v", c.name, got, err, c.want)
		}
		left, err := os.ReadDir(m.Dir)
		if err != nil || len(left) != len(names)+len(foreign)-len(c.want) {
			t.Errorf("%s: left %v, %v", c.name, left, err)
		}
		if _, err := os.Stat(filepath.Join(m.Metadata, names[1])); (err == nil) != (len(c.want) == 0) {
			t.Errorf("%s: metadata of %s: %v", c.name, names[1], err)
		}
		if len(c.want) > 0 && len(records.local) != len(names)+2-len(c.want) {
			t.Errorf("%s: the records tell of %d files", c.name, len(records.local))
		}
	}
}

func TestShedWithoutFolder(t *testing.T) {
	m := newManager(t, nilEtcd{}, "x", nil)
	if err := os.RemoveAll(m.Dir); err != nil {
		t.Fatal(err)
	}
	if got, err := m.Shed(t.Context(), func() bool { return false }); !errors.Is(err, os.ErrNotExist) || got != nil {
		t.Errorf("got %v, %v", got, err)
	}
	m = newManager(t, nilEtcd{}, "x", nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, name := range []string{"a-cp-1-1", "a-cp-1-2"} {
		if err := os.WriteFile(filepath.Join(m.Dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := m.Shed(ctx, func() bool { return false }); err != nil || got != nil {
		t.Errorf("after the end: got %v, %v", got, err)
	}
}

// nilEtcd is never asked.
type nilEtcd struct{ Etcd }
