package testpe

import (
	"bytes"
	"debug/pe"
	"testing"
)

func TestProgram(t *testing.T) {
	for _, headers := range []int{512, 1024} {
		b := Program(headers, 3)
		f, err := pe.NewFile(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Sections) != 1 || len(b) != 2*headers+3 {
			t.Fatalf("%d sections in %d bytes", len(f.Sections), len(b))
		}
		s := f.Sections[0]
		if int(s.Offset) != headers || int(s.Size) != headers || s.Name != ".text" {
			t.Errorf("section %s of %d bytes at %d, want .text of %d at as many", s.Name, s.Size, s.Offset, headers)
		}
	}
}
