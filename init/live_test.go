package main

import (
	"path/filepath"
	"strings"
	"testing"

	"keelson/init/blockdev"
	"keelson/init/kernel"
	"keelson/init/layout"
)

func TestLive(t *testing.T) {
	m := newMachine()
	for line, want := range map[string][2]bool{
		"keelson.live=1": {true, false}, "keelson.live=memory": {true, true}, "keelson.live=0": {false, false}, "quiet": {false, false},
	} {
		m.cmdline = kernel.ParseCmdline(line)
		if got := [2]bool{m.live(), m.inMemory()}; got != want {
			t.Errorf("%s: got live, in memory %v, want %v", line, got, want)
		}
	}
}

func TestRootInMemory(t *testing.T) {
	m := newMachine()
	m.cmdline = kernel.ParseCmdline("keelson.live=memory")
	if _, err := m.rootInMemory(filepath.Join(t.TempDir(), "absent"), nil); err == nil || !strings.Contains(err.Error(), "the initramfs has no root") {
		t.Errorf("without a root: got %v", err)
	}
	if _, err := m.ofMedium(layout.NumberPayload); err == nil || !strings.Contains(err.Error(), "has no medium") {
		t.Errorf("what an installer reads: got %v", err)
	}
	if got := m.espDevice(); got != "" {
		t.Errorf("user-data of a medium: got %s, want none", got)
	}
}

func TestSystemDisk(t *testing.T) {
	m := newMachine()
	m.medium = blockdev.Partition{Disk: "sr0"}
	if got := m.systemDisk(); got != "sr0" {
		t.Errorf("live with the state in memory: got %s, want the medium", got)
	}
	m.statePart = blockdev.Partition{Disk: "sda"}
	if got := m.systemDisk(); got != "sda" {
		t.Errorf("live with a state: got %s, want its disk", got)
	}
	m.disk = &blockdev.Disk{Name: "vda"}
	if got := m.systemDisk(); got != "vda" {
		t.Errorf("from a disk: got %s, want it", got)
	}
}
