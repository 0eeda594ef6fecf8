package netns

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Build compiles PID 1 into a folder. It needs the go command and to run inside the module.
func Build(ctx context.Context, dir string) (program string, err error) {
	program = filepath.Join(dir, "nsinit")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, "keelson/testvm/netns/nsinit")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build PID 1: %w: %s", err, out)
	}
	return program, nil
}

// hostFiles are what a node needs for this host that it would not need for a machine of its own, by their place on
// its disk. All of it is what any user may write; as user-data it would take the place of the scenario's own files.
func hostFiles() map[string]string {
	settings := "kube-proxy-arg+:\n" +
		// The table's size belongs to the whole kernel.
		"- conntrack-max-per-core=0\n- conntrack-min=0\n"
	files := map[string]string{}
	if !unified() {
		settings += "kubelet-arg+:\n- fail-cgroupv1=false\n"
	}
	if !mayLowerOOM() {
		files["lib/rancher/rke2/agent/etc/containerd/config.toml.d/10-host.toml"] =
			"version = 4\n[plugins.'io.containerd.cri.v1.runtime']\n  restrict_oom_score_adj = true\n"
	}
	files["lib/keelson/etc/rancher/rke2/config.yaml.d/90-host.yaml"] = settings
	return files
}

// writeHostFiles puts them on a machine's disk.
func writeHostFiles(disk string) error {
	for name, content := range hostFiles() {
		path := filepath.Join(disk, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// unified tells whether the host has cgroups of version 2 alone.
func unified() bool {
	var fs unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
}

// mayLowerOOM tells whether a process may make itself less likely a victim, which containerd does for what it starts
// (CAP_SYS_RESOURCE, proc_pid_oom_score_adj(5)).
func mayLowerOOM() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}
