package netconfig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/init/userdata"
)

// Every example that the project ships is taken without a word.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../configs/network-config/*.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("got %v %v, want the examples", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			plan, problems := Load([]userdata.Document{{Source: file, Data: data}})
			for _, p := range problems {
				t.Error(p)
			}
			want := 1
			if strings.HasPrefix(filepath.Base(file), "bond-and-vlan") {
				want = 4
			}
			if len(plan.Links) != want {
				t.Errorf("got %d links, want %d", len(plan.Links), want)
			}
		})
	}
}
