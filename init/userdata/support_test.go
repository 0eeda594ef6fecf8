package userdata

import (
	"os"
	"strings"
	"testing"
)

const (
	document = "../../docs/USERDATA.md"
	begin    = "<!-- keys: made by go test ./init/userdata -update -->\n"
	end      = "<!-- end of keys -->\n"
)

// The document says what the code does.
func TestTableOfKeys(t *testing.T) {
	data, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(data), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", document)
	}
	if want := Support(); table != want {
		if !*update {
			t.Fatalf("%s is not what the code says; run go test ./init/userdata -update", document)
		}
		if err := os.WriteFile(document, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryKeyIsExplained(t *testing.T) {
	for _, key := range keys() {
		if honoured()[key] == "" {
			t.Errorf("%s: nothing says what it does", key)
		}
		if unsupported()[key] != "" {
			t.Errorf("%s is honoured and not supported at once", key)
		}
	}
	if len(honoured()) != len(keys()) {
		t.Error("a key is explained that is not honoured")
	}
}
