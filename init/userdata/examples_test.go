package userdata

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keelson/init/kernel"
)

// Every example that the project ships is taken without a word.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../configs/user-data/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("got %v %v, want the examples", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			cfg, problems := Load(Documents{User: []Document{{Source: file, Data: data}}})
			for _, p := range problems {
				t.Error(p)
			}
			if cfg.Hostname == "" || cfg.Role != RoleServer || len(cfg.Files) == 0 {
				t.Errorf("got %+v, want a named server with settings", cfg)
			}
		})
	}
}

// kubelet compares these with protect-kernel-defaults (k8s.io/kubernetes
// pkg/kubelet/cm/container_manager_linux.go, setupKernelTunables).
func TestKernelSettings(t *testing.T) {
	settings, err := kernel.LoadSysctls("../../configs/sysctl.d")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for _, s := range settings {
		if _, twice := values[s.Key]; twice {
			t.Errorf("%s is set twice", s.Key)
		}
		values[s.Key] = s.Value
	}
	for key, want := range map[string]string{
		"vm.overcommit_memory": "1", "vm.panic_on_oom": "0", "kernel.panic": "10", "kernel.panic_on_oops": "1",
		"kernel.keys.root_maxkeys": "1000000", "kernel.keys.root_maxbytes": "25000000",
		"net.ipv4.conf.all.forwarding": "1", "net.ipv6.conf.all.forwarding": "1",
		"net.bridge.bridge-nf-call-iptables": "1", "net.bridge.bridge-nf-call-ip6tables": "1",
	} {
		if got := values[key]; got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}

// Every module that is loaded at boot must be in the image.
func TestModulesAreInTheImage(t *testing.T) {
	names, err := kernel.LoadModuleNames("../../configs/modules-load.d")
	if err != nil || len(names) == 0 {
		t.Fatalf("got %v %v", names, err)
	}
	var listed []string
	for _, list := range []string{"boot.list", "root.list"} {
		data, err := os.ReadFile(filepath.Join("../../configs/modules", list))
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, strings.Split(string(data), "\n")...)
	}
	// package source mounts volumes with these
	for _, name := range append(names, "isofs", "vfat", "nls_cp437", "nls_ascii") {
		if !slices.Contains(listed, name) {
			t.Errorf("module %s is not in configs/modules", name)
		}
	}
}
