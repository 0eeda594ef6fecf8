package dmi

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// table is a BIOS structure without texts, one of type 11 with two, and the end.
const table = "\x00\x05\x00\x00\x01\x00\x00" +
	"\x0b\x05\x01\x00\x02ds=nocloud;s=http://192.0.2.1/\x00second\x00\x00" +
	"\x7f\x04\x02\x00\x00\x00"

func TestLoad(t *testing.T) {
	sys := t.TempDir()
	put(t, sys+"/class/dmi/id/sys_vendor", "Amazon EC2\n")
	put(t, sys+"/class/dmi/id/product_name", "m7g.large\n")
	put(t, sys+"/class/dmi/id/chassis_serial", " C-1 \n")
	put(t, sys+"/firmware/dmi/tables/DMI", table)
	id := Load(sys)
	if id.SystemVendor != "Amazon EC2" || id.ProductName != "m7g.large" || id.ProductUUID != "" {
		t.Errorf("got %+v", id)
	}
	if want := []string{"ds=nocloud;s=http://192.0.2.1/", "second"}; !slices.Equal(id.OEM, want) {
		t.Errorf("OEM strings: got %q, want %q", id.OEM, want)
	}
	for _, c := range []struct {
		word, want string
		known      bool
	}{{"chassis-serial-number", "C-1", true}, {"system-uuid", "", true}, {"colour", "", false}} {
		if got, known := id.Value(c.word); got != c.want || known != c.known {
			t.Errorf("%s: got %q %v, want %q %v", c.word, got, known, c.want, c.known)
		}
	}
}

func TestNoFirmware(t *testing.T) {
	if id := Load(t.TempDir()); id.SystemVendor != "" || id.OEM != nil {
		t.Errorf("got %+v, want nothing", id)
	}
}

func TestOEMStrings(t *testing.T) {
	for name, c := range map[string]struct {
		table string
		want  []string
	}{
		"empty":         {"", nil},
		"cut short":     {table[:30], []string{"ds=nocloud;s=http:"}},
		"size too big":  {"\x0b\xff\x00\x00a\x00\x00", nil},
		"size too few":  {"\x0b\x01\x00\x00a\x00\x00", nil},
		"after the end": {"\x7f\x04\x00\x00\x00\x00\x0b\x04\x00\x00late\x00\x00", nil},
	} {
		if got := OEMStrings([]byte(c.table)); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func FuzzOEMStrings(f *testing.F) {
	f.Add([]byte(table))
	f.Add([]byte(table[:30]))
	f.Fuzz(func(t *testing.T, data []byte) {
		total := 0
		for _, s := range OEMStrings(data) {
			if total += len(s); s == "" || total > len(data) {
				t.Fatalf("got %d bytes of %d", total, len(data))
			}
		}
	})
}
