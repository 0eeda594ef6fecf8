package shutdown

import (
	"os"
	"testing"
)

// A button whose node is not there yet is opened once it is, and only once.
func TestOpenNew(t *testing.T) {
	node, listening := t.TempDir()+"/event0", map[string]bool{}
	if files, err := openNew([]string{node}, listening); err == nil || len(files) != 0 {
		t.Errorf("without its node: got %d files and %v", len(files), err)
	}
	if err := os.WriteFile(node, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for turn, want := range []int{1, 0} {
		files, err := openNew([]string{node}, listening)
		if err != nil || len(files) != want {
			t.Errorf("turn %d: got %d files and %v, want %d", turn, len(files), err, want)
		}
		for _, f := range files {
			f.Close()
		}
	}
}
