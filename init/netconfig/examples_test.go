package netconfig

import (
	"os"
	"path/filepath"
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
			if len(plan.Links) != 1 {
				t.Errorf("got %d links, want 1", len(plan.Links))
			}
		})
	}
}
