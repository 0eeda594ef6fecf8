package main

import (
	"context"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"keelson/imagebuild/definition"
	"keelson/imagebuild/input"
	"keelson/init/layout"

	"github.com/diskfs/go-diskfs/partition/gpt"
)

func TestMachineOf(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		m, err := machineOf(arch)
		if err != nil || m.efi == "" || m.triplet == "" || m.gcc == "" || m.libc == "" || m.bios != (arch == "amd64") {
			t.Errorf("machineOf(%s): got %+v, %v", arch, m, err)
		}
	}
	if _, err := machineOf("vax"); err == nil || !strings.Contains(err.Error(), `"vax"`) {
		t.Errorf("machineOf(vax): got %v", err)
	}
}

func TestNeedsOfAnotherMachine(t *testing.T) {
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	m, err := machineOf(other)
	if err != nil {
		t.Fatal(err)
	}
	all, err := needs("build", other)
	if err != nil {
		t.Fatal(err)
	}
	var pkgs []string
	for _, n := range all {
		pkgs = append(pkgs, n.pkg)
	}
	if got := strings.Join(pkgs, " "); !strings.Contains(got, m.gcc) {
		t.Errorf("needs for %s: got %s", other, got)
	}
	own, err := needs("build", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range append(own, all...) {
		if strings.HasPrefix(n.pkg, "libseccomp") || strings.HasPrefix(n.pkg, "libc6") {
			t.Errorf("the build wants %s of this machine: it has a locked one", n.pkg)
		}
	}
	if _, err := needs("build", "vax"); err == nil {
		t.Error("needs for a machine that is not known: got no error")
	}
	running, err := needs("run", "arm64")
	if err != nil || running[0].program != "qemu-system-aarch64" {
		t.Errorf("needs to run arm64: got %v, %v", running, err)
	}
}

// The disk of a machine without BIOS: no boot partition, and numbers as ever.
func TestDiskWithoutBIOS(t *testing.T) {
	s, _ := newState(t)
	s.config.Arch, s.config.Out = "arm64", s.part("out.raw")
	s.source.Epoch = time.Unix(1_700_000_000, 0)
	for _, name := range []string{"esp.img", "root.erofs"} {
		if err := os.WriteFile(s.part(name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeDisk(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	if _, err := diskKey(s); err != nil {
		t.Error(err)
	}
	if got := espFiles(s); len(got) != 1 || got[0] != s.part("esp.img") {
		t.Errorf("files of the ESP's stage: got %v", got)
	}
	f, err := os.Open(s.config.Out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(f, layout.SectorSize, layout.SectorSize)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range table.Partitions {
		if p.Name == "" {
			continue
		}
		got = append(got, p.Name+" "+strings.ToLower(string(p.Type)))
		if want := map[string]int{layout.LabelESP: layout.NumberESP, layout.LabelRootA: layout.NumberRootA}[p.Name]; p.Index != want {
			t.Errorf("%s has number %d, want %d", p.Name, p.Index, want)
		}
	}
	if want := layout.LabelESP + " " + layout.TypeESP + "," + layout.LabelRootA + " " + layout.TypeRootARM64; strings.Join(got, ",") != want {
		t.Errorf("partitions: got %v, want %s", got, want)
	}
}

// Every list that an image of either architecture may need has its packages
// locked, with the kernel under the name that the builder looks for.
func TestPackageLists(t *testing.T) {
	t.Chdir("..")
	for _, arch := range []string{"amd64", "arm64"} {
		list, err := openPackages(Config{Arch: arch}, arch+"-sysroot")
		if err != nil || list == nil {
			t.Errorf("%s: what programs in C are linked with: %v", arch, err)
		}
		for _, flavour := range []string{definition.Cloud, definition.Generic} {
			var wants []string
			for _, list := range packageLists(arch, flavour, true) {
				text, err := os.ReadFile("configs/packages/" + list + ".list")
				if err != nil {
					t.Fatal(err)
				}
				l, err := input.LoadList(list, text)
				if err != nil {
					t.Fatal(err)
				}
				for _, w := range l.Wants {
					wants = append(wants, w.Name)
				}
			}
			all := " " + strings.Join(wants, " ") + " "
			for _, want := range []string{kernelPackage(arch, flavour), "systemd-boot-efi", "firmware-bnx2x"} {
				if !strings.Contains(all, " "+want+" ") {
					t.Errorf("%s, %s: no %s among %s", arch, flavour, want, all)
				}
			}
			if got := strings.Contains(all, " grub-pc-bin "); got != (arch == "amd64") {
				t.Errorf("%s: GRUB for BIOS: %v", arch, got)
			}
		}
	}
}
