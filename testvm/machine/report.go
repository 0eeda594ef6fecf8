package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	diskfs "github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"keelson/init/layout"
	"keelson/testvm/kube"
	"keelson/testvm/qemu"
)

// Report leaves in dir what a failure can be understood from: why, console,
// command lines, seed, QEMU's complaints, what the API still says, and the
// logs that the machine kept on its disk. The machine is off afterwards. The
// disk itself is kept only where keepDisk says so.
func (m *Machine) Report(ctx context.Context, dir, why string, keepDisk bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	errs := []error{os.WriteFile(filepath.Join(dir, "failure.txt"), []byte(why+"\n"), 0o644)}
	if m.running() {
		errs = append(errs, m.reportCluster(ctx, dir))
		m.proc.Kill()
		_, err := m.Ended(ctx)
		errs = append(errs, err)
	}
	for _, name := range []string{"console.log", "command.sh", "qemu.log"} {
		errs = append(errs, qemu.CopyFile(m.path(name), filepath.Join(dir, name)))
	}
	for name, data := range map[string][]byte{
		"user-data": m.config.Seed.UserData, "meta-data": m.config.Seed.MetaData, "network-config": m.config.Seed.NetworkConfig,
	} {
		if data != nil {
			errs = append(errs, os.WriteFile(filepath.Join(dir, name), data, 0o600))
		}
	}
	errs = append(errs, m.reportLogs(ctx, dir))
	if keepDisk {
		errs = append(errs, exec.CommandContext(ctx, "cp", "--sparse=always", m.path("disk.qcow2"), dir).Run())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// reportCluster asks the API, if there is one to be asked within a few seconds.
func (m *Machine) reportCluster(ctx context.Context, dir string) error {
	data, err := os.ReadFile(m.path("kubeconfig"))
	if err != nil {
		return nil // it never came that far
	}
	client, err := kube.Load(data)
	if err != nil {
		return err
	}
	return client.Report(ctx, dir)
}

// logPaths are what a machine has to tell, below STATE: folders and a file.
func logPaths() []string {
	return []string{
		"/log", "/lib/keelson/timeline.json", "/lib/keelson/timeline", "/lib/rancher/rke2/agent/logs",
		"/lib/rancher/rke2/agent/containerd/containerd.log",
	}
}

// reportLogs reads the logs of the STATE partition with debugfs, which
// needs no mount and no root.
func (m *Machine) reportLogs(ctx context.Context, dir string) error {
	raw := m.path("flat.raw")
	defer os.Remove(raw)
	if err := qemu.Flatten(ctx, m.path("disk.qcow2"), raw); err != nil {
		return err
	}
	offset, err := PartitionOffset(raw, layout.LabelState)
	if err != nil {
		return nil // the first boot did not come so far as to make one
	}
	state := fmt.Sprintf("%s?offset=%d", raw, offset)
	// Replays the journal; its status says whether there was something to do.
	_ = exec.CommandContext(ctx, "e2fsck", "-fy", state).Run()
	guest := filepath.Join(dir, "guest")
	for _, path := range logPaths() {
		to := filepath.Join(guest, filepath.Dir(path))
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		// What is absent is debugfs' own message, not an error.
		if out, err := exec.CommandContext(ctx, "debugfs", "-R", fmt.Sprintf("rdump %s %q", path, to), state).CombinedOutput(); err != nil {
			return fmt.Errorf("read logs of the disk: debugfs: %w: %s", err, out)
		}
	}
	return nil
}

// PartitionOffset finds a partition by its label in a raw disk, in bytes.
func PartitionOffset(raw, label string) (int64, error) {
	d, err := diskfs.Open(raw, diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		return 0, fmt.Errorf("read partitions of %s: %w", raw, err)
	}
	defer d.Close()
	table, err := d.GetPartitionTable()
	if err != nil {
		return 0, fmt.Errorf("read partitions of %s: %w", raw, err)
	}
	g, ok := table.(*gpt.Table)
	if !ok {
		return 0, fmt.Errorf("read partitions of %s: it has no GPT", raw)
	}
	for _, p := range g.Partitions {
		if p.Name == label {
			return int64(p.Start) * int64(g.LogicalSectorSize), nil
		}
	}
	return 0, fmt.Errorf("read partitions of %s: there is no %s", raw, label)
}
