package main

import (
	"testing"

	"keelson/init/blockdev"
	"keelson/init/kernel"
)

func TestLive(t *testing.T) {
	m := newMachine()
	for line, want := range map[string]bool{"keelson.live=1": true, "keelson.live=0": false, "quiet": false} {
		m.cmdline = kernel.ParseCmdline(line)
		if got := m.live(); got != want {
			t.Errorf("%s: got %v, want %v", line, got, want)
		}
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
