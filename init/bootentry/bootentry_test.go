package bootentry

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func loader() Loader {
	return Loader{Partition: 2, Start: 4096, Sectors: 196608, ID: [16]byte{0: 0x11, 1: 0x22, 15: 0xff}, Path: Fallback("amd64")}
}

// As efibootmgr writes it for such a disk: UEFI 2.10, 3.1.3, 10.3.5.1 and 10.3.5.4 field by field.
func TestRender(t *testing.T) {
	want := "01000000" + "5e00" + // active, length of the path
		"4b00650065006c0073006f006e000000" + // "Keelson"
		"0401" + "2a00" + "02000000" + "0010000000000000" + "0000030000000000" + "112200000000000000000000000000ff" + "02" + "02" +
		"0404" + "3000" + "5c004500460049005c0042004f004f0054005c0042004f004f0054005800360034002e004500460049000000" +
		"7fff" + "0400"
	if got := hex.EncodeToString(Render(loader())); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}

func TestFallback(t *testing.T) {
	for arch, want := range map[string]string{"amd64": "/EFI/BOOT/BOOTX64.EFI", "arm64": "/EFI/BOOT/BOOTAA64.EFI"} {
		if got := Fallback(arch); got != want {
			t.Errorf("%s: got %s, want %s", arch, got, want)
		}
	}
}

// firmware is a folder of variables as efivarfs shows it.
func firmware(t *testing.T, vars map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, value := range vars {
		if !strings.Contains(name, "-") {
			name += "-" + global
		}
		if err := os.WriteFile(filepath.Join(dir, name), append([]byte{7, 0, 0, 0}, value...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func list(numbers ...uint16) (b []byte) {
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint16(b, n)
	}
	return b
}

func option(description string) []byte {
	b := append([]byte{1, 0, 0, 0, 4, 0}, text(description)...)
	return append(b, node(0x7f, 0xff)...)
}

func TestEnsure(t *testing.T) {
	others := map[string][]byte{"Boot0000": option("UiApp"), "Boot0001": option("UEFI CD"), "BootOrder": list(1, 0), "Boot00FF-" + strings.Repeat("0", 36): option("Keelson"),
		"BootOptionSupport": {1, 0, 0, 0}, "BootCurrent": list(1)}
	with := func(name string, value []byte) map[string][]byte {
		all := map[string][]byte{name: value}
		for n, v := range others {
			if _, ok := all[n]; !ok {
				all[n] = v
			}
		}
		return all
	}
	for _, c := range []struct {
		name   string
		vars   map[string][]byte
		number uint16
		order  []byte
	}{
		{"others are there", others, 2, list(2, 1, 0)},
		{"firmware without any", nil, 0, list(0)},
		{"a gap", with("Boot0003", option("PXE")), 2, list(2, 1, 0)},
		{"a number in the order that has no option", with("BootOrder", list(2, 1)), 3, list(3, 2, 1)},
		{"an older installation", with("Boot0007", option("Keelson")), 7, list(7, 1, 0)},
		{"one that is last in the order", map[string][]byte{"Boot0004": option("Keelson"), "BootOrder": list(9, 4)}, 4, list(4, 9)},
		{"another whose name begins so", with("Boot0002", option("Keelson old")), 3, list(3, 1, 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := firmware(t, c.vars)
			if err := Ensure(dir, loader()); err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("Boot%04X", c.number)
			for variable, want := range map[string][]byte{name: Render(loader()), "BootOrder": c.order, "BootNext": list(c.number)} {
				if got, err := read(dir, variable); err != nil || !slices.Equal(got, want) {
					t.Errorf("%s: got %x, %v, want %x", variable, got, err, want)
				}
			}
			for variable, want := range c.vars {
				if variable == name || variable == "BootOrder" || strings.Contains(variable, "-") {
					continue
				}
				if got, err := read(dir, variable); err != nil || !slices.Equal(got, want) {
					t.Errorf("%s was changed: %x, %v", variable, got, err)
				}
			}
		})
	}
}

// What is as it should be is not written again.
func TestEnsureTwice(t *testing.T) {
	dir := firmware(t, nil)
	if err := Ensure(dir, loader()); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 {
		t.Fatalf("got %d files, %v, want the option, the order and the next one", len(files), err)
	}
	for _, f := range files {
		// Who could not write them could not open them for writing, but root can: a changed attribute tells as well.
		if err := os.WriteFile(filepath.Join(dir, f.Name()), func() []byte {
			b, _ := os.ReadFile(filepath.Join(dir, f.Name()))
			b[0] = 0x47
			return b
		}(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := Ensure(dir, loader()); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(filepath.Join(dir, f.Name())); err != nil || b[0] != 0x47 {
			t.Errorf("%s was written again", f.Name())
		}
	}
}

func TestEnsureSays(t *testing.T) {
	full := map[string][]byte{}
	broken := firmware(t, full)
	if err := os.WriteFile(filepath.Join(broken, "BootOrder-"+global), []byte{7, 0}, 0o644); err != nil {
		t.Fatal(err)
	}
	cut := firmware(t, full)
	if err := os.WriteFile(filepath.Join(cut, "Boot0001-"+global), []byte{7}, 0o644); err != nil {
		t.Fatal(err)
	}
	refuses := firmware(t, full)
	if err := os.Mkdir(filepath.Join(refuses, "Boot0000-"+global+"x"), 0o755); err != nil { // not an option's name
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(refuses, "BootNext-"+global), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, dir, want string }{
		{"no efivarfs", filepath.Join(t.TempDir(), "none"), "read the firmware's variables"},
		{"an order without attributes", broken, "read the firmware's BootOrder: 2 bytes"},
		{"an option without attributes", cut, "read the firmware's Boot0001: 1 bytes"},
		{"firmware that refuses", refuses, "write the firmware's BootNext"},
	} {
		if err := Ensure(c.dir, loader()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func FuzzPlace(f *testing.F) {
	f.Add(option("Keelson"), list(1, 0))
	f.Add([]byte{}, []byte{1})
	f.Fuzz(func(t *testing.T, value, order []byte) {
		dir := firmware(t, map[string][]byte{"Boot0000": value, "BootOrder": order})
		if err := Ensure(dir, loader()); err != nil {
			t.Fatal(err)
		}
		got, err := readOrder(dir)
		if err != nil || len(got) == 0 {
			t.Fatalf("order: got %v, %v", got, err)
		}
		if !ours(value) && got[0] == 0 {
			t.Error("another system's option was taken")
		}
	})
}
