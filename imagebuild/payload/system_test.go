package payload

import (
	"bytes"
	"strings"
	"testing"

	"keelson/init/layout"
)

// system has an ESP whose directory and kernel are on the medium's, too.
func system() (s System, live, installed []byte) {
	directory, kernel, root := random(1, 4096), random(2, 300_000), random(3, 1<<20)
	kernel = append(kernel, make([]byte, 512-len(kernel)%512)...)
	live = bytes.Join([][]byte{directory, kernel, make([]byte, 8<<10)}, nil)
	installed = bytes.Join([][]byte{directory, random(4, 512), kernel, make([]byte, 64<<10)}, nil)
	return System{
		Arch: "amd64", Core: content(random(5, 70_000)), ESP: content(installed), Root: content(root), MediumESP: content(live), Kernel: content(kernel),
	}, live, installed
}

// Somebody who puts user-data on the stick changes its directories; what is installed stays what was built.
func TestUserDataOnTheStick(t *testing.T) {
	s, live, installed := system()
	parts, err := s.Partitions()
	if err != nil {
		t.Fatal(err)
	}
	made, err := Make("1", "", parts)
	if err != nil {
		t.Fatal(err)
	}
	if len(made) > 4*layout.PayloadAlign {
		t.Errorf("payload of %d bytes for a directory and a sector", len(made))
	}
	copy(live, "user-data")
	copy(live[len(live)-100:], "and what is in it")
	core, root := make([]byte, s.Core.Len), make([]byte, s.Root.Len)
	for b, c := range map[*[]byte]Content{&core: s.Core, &root: s.Root} {
		if _, err := c.Data.ReadAt(*b, 0); err != nil {
			t.Fatal(err)
		}
	}
	got := rebuild(t, made, map[int][]byte{layout.NumberBIOS: core, layout.NumberESP: live, layout.NumberLive: root})
	if len(got) != 3 || !bytes.Equal(got[0], core) || !bytes.Equal(got[1], installed) || !bytes.Equal(got[2], root) {
		t.Error("what is installed is not what was built")
	}
}

func TestPartitions(t *testing.T) {
	s, _, _ := system()
	s.Arch, s.Core = "arm64", Content{}
	parts, err := s.Partitions()
	if err != nil || len(parts) != 2 || parts[0].Label != layout.LabelESP || parts[1].Type != layout.TypeRootARM64 || parts[1].Size != 1<<20 {
		t.Errorf("arm64: got %+v, %v", parts, err)
	}
	for name, c := range map[string]struct {
		change func(*System)
		want   string
	}{
		"architecture":   {func(s *System) { s.Arch = "mips" }, "mips"},
		"another kernel": {func(s *System) { s.Kernel = content([]byte("another")) }, "not on the medium"},
		"no kernel":      {func(s *System) { s.Kernel = content(nil) }, "not on the medium"},
		"half of it":     {func(s *System) { s.MediumESP.Len = 100_000 }, "not on the medium"},
		"no file":        {func(s *System) { s.Kernel = Content{Data: broken{}, Len: 1} }, "kernel image"},
		"unreadable":     {func(s *System) { s.MediumESP.Data = bytes.NewReader(nil); s.MediumESP.Len = 10 }, "not on the medium"},
	} {
		s, _, _ := system()
		c.change(&s)
		if _, err := s.Partitions(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
	if _, err := Make("1", "", []Partition{{Content: content([]byte("x")), Medium: content([]byte("x")), Within: Range{0, 2}}}); err == nil {
		t.Error("a range outside of the medium: taken")
	}
}
