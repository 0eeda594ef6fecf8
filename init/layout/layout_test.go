package layout

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

func TestParseVerity(t *testing.T) {
	hash, salt := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	cases := []struct {
		name, in, wantErr string
	}{
		{"whole", hash + ":12345:" + salt, ""},
		{"two parts", hash + ":12345", "want <root hash>:<data blocks>:<salt>"},
		{"short hash", "abcd:12345:" + salt, "root hash"},
		{"no blocks", hash + ":0:" + salt, "data blocks"},
		{"negative blocks", hash + ":-1:" + salt, "data blocks"},
		{"blocks past any disk", hash + ":1099511627776:" + salt, "data blocks"},
		{"bad salt", hash + ":12345:zz", "salt"},
		{"empty", "", "want <root hash>"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v, err := ParseVerity(c.in)
			if c.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantErr) {
					t.Fatalf("error: got %v, want one with %q", err, c.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := v.String(); got != c.in {
				t.Errorf("String: got %s, want %s", got, c.in)
			}
			if got, want := v.HashOffset(), uint64(12345*4096); got != want {
				t.Errorf("HashOffset: got %d, want %d", got, want)
			}
		})
	}
}

func FuzzParseVerity(f *testing.F) {
	f.Add(strings.Repeat("ab", 32) + ":1:" + strings.Repeat("cd", 32))
	f.Add("::")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVerity(s)
		if err != nil {
			return
		}
		again, err := ParseVerity(v.String())
		if err != nil || !bytes.Equal(again.RootHash, v.RootHash) || again.DataBlocks != v.DataBlocks {
			t.Fatalf("%q does not survive a round trip: %v", s, err)
		}
	})
}

func TestSlots(t *testing.T) {
	for _, s := range []Slot{SlotA, SlotB} {
		got, err := ParseSlot(string(s))
		if err != nil || got != s {
			t.Errorf("ParseSlot(%q): got %q, %v", s, got, err)
		}
		if s.Other() == s || s.Other().Other() != s {
			t.Errorf("slot %q: other is %q", s, s.Other())
		}
	}
	if _, err := ParseSlot("c"); err == nil {
		t.Error("ParseSlot(c): got no error")
	}
	if SlotA.Label() != LabelRootA || SlotB.Label() != LabelRootB {
		t.Errorf("labels: got %s, %s", SlotA.Label(), SlotB.Label())
	}
}

// GPT names hold 36 UTF-16 units and an ext4 label 16 bytes.
func TestNamesFit(t *testing.T) {
	for _, l := range []string{LabelBIOS, LabelESP, LabelRootA, LabelRootB, LabelState} {
		if len(l) > 36 || !strings.HasPrefix(l, LabelPrefix) {
			t.Errorf("partition label %q does not fit", l)
		}
	}
	if len(StateFSLabel) > 16 {
		t.Errorf("ext4 label %q is longer than 16 bytes", StateFSLabel)
	}
	guid := regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	for _, g := range []string{TypeBIOSBoot, TypeESP, TypeRootAMD64, TypeRootARM64, TypeState} {
		if !guid.MatchString(g) {
			t.Errorf("type GUID %q is not one in lower case", g)
		}
	}
}

func TestRootType(t *testing.T) {
	for arch, want := range map[string]string{"amd64": TypeRootAMD64, "arm64": TypeRootARM64} {
		if got, err := RootType(arch); err != nil || got != want {
			t.Errorf("RootType(%s): got %s, %v, want %s", arch, got, err, want)
		}
	}
	if _, err := RootType("mips"); err == nil {
		t.Error("RootType(mips): got no error")
	}
}
