package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"keelson/testvm/cidata"
	"keelson/testvm/console"
	"keelson/testvm/kube"
	"keelson/testvm/machine"
	"keelson/testvm/qemu"
	"keelson/testvm/registry"
)

// node measures first boots of the raw image. The look at the memory is taken
// by a pod, whose image a registry serves; the pod's own share, some 25 MiB of
// shim, sandbox and program, is in what it reports.
type node struct {
	config   Config
	registry *registry.Registry
}

const (
	nodeLimit = 20 * time.Minute
	lookImage = "docker.io/keelson/workload:1"
)

func newNode(ctx context.Context, c Config) (*node, error) {
	n := &node{config: c}
	if c.Settle == 0 {
		return n, nil
	}
	var err error
	if n.registry, err = registry.Start(); err != nil {
		return nil, err
	}
	image, err := registry.Workload(ctx, "amd64")
	if err != nil {
		n.close()
		return nil, err
	}
	if err := n.registry.Push(ctx, image, "keelson/workload:1"); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *node) close() {
	if n.registry != nil {
		n.registry.Close()
	}
}

func (n *node) userData() ([]byte, error) {
	config := cidata.CloudConfig{Hostname: "bench", RKE2: map[string]any{"role": "server"}}
	if n.registry != nil {
		config.WriteFiles = []cidata.File{{
			Path: "/etc/rancher/rke2/registries.yaml", Permissions: "0600",
			Content: fmt.Sprintf("mirrors:\n  docker.io:\n    endpoint: [\"http://%s:%d\"]\n", qemu.HostInGuest, n.registry.Port()),
		}}
	}
	return config.Render()
}

// measure boots a new machine once. One that fails leaves a report.
func (n *node) measure(ctx context.Context) (*Boot, error) {
	ctx, cancel := context.WithTimeout(ctx, nodeLimit)
	defer cancel()
	userData, err := n.userData()
	if err != nil {
		return nil, err
	}
	m, err := machine.New(ctx, machine.Config{
		Dir: filepath.Join(n.config.Dir, "bench"), Image: n.config.Image, Boot: n.config.Built, Accel: n.config.Accel,
		Firmware: qemu.Direct, Memory: memory, CPUs: cpus, Seed: cidata.Volume{UserData: userData},
	})
	if err != nil {
		return nil, err
	}
	defer m.Remove()
	busy := hostBusy()
	if err := m.Start(ctx); err != nil {
		return nil, err
	}
	boot, err := n.observe(ctx, m, busy)
	if err != nil {
		report := filepath.Join(n.config.Dir, "reports", "bench")
		err = fmt.Errorf("measure boot: %w; report: %s", err, report)
		return nil, errors.Join(err, m.Report(context.WithoutCancel(ctx), report, err.Error(), false))
	}
	return boot, nil
}

func (n *node) observe(ctx context.Context, m *machine.Machine, busy time.Duration) (*Boot, error) {
	client, err := m.Client(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := client.NodeReady(ctx); err != nil {
		return nil, err
	}
	boot := &Boot{Ready: time.Since(m.Started()).Seconds()}
	used, err := m.CPU()
	if err != nil {
		return nil, err
	}
	boot.CPU, boot.Foreign = used.Seconds(), (hostBusy() - busy - used).Seconds()
	seen, err := m.Milestone(ctx, "node Ready")
	if err != nil {
		return nil, err
	}
	boot.Console = seen.At.Sub(m.Started()).Seconds()
	complete, err := m.Booted(ctx)
	if err != nil {
		return nil, err
	}
	boot.Complete = complete.Since.Seconds()
	if seen, err = m.Milestone(ctx, "system pods Ready"); err != nil {
		return nil, err
	}
	boot.Pods = seen.At.Sub(m.Started()).Seconds()
	if n.registry != nil {
		settled := time.NewTimer(n.config.Settle) // the time is what is asked for, not an event
		defer settled.Stop()
		select {
		case <-settled.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		out, err := client.RunPod(ctx, kube.Pod{Namespace: "default", Name: "memory", Image: lookImage, Args: []string{"memory"}, Host: true})
		if err != nil {
			return nil, err
		}
		if err := boot.memory(out); err != nil {
			return nil, err
		}
	}
	boot.Timeline = timeline(m.Console().Since(m.Mark()), m.Started())
	return boot, nil
}

// timeline is when each step and milestone came, from QEMU's start.
func timeline(lines []console.Line, began time.Time) map[string]float64 {
	t := map[string]float64{}
	for _, l := range lines {
		s, ok := console.ParseStep(l.Text)
		if !ok {
			continue
		}
		name := s.Name
		switch s.Kind {
		case console.Passed, console.Broken:
			name = "init: " + name
		case console.Milestone:
			name = "node: " + name
		case console.Complete:
			name = "init: complete"
		default:
			continue
		}
		if _, again := t[name]; !again {
			t[name] = l.At.Sub(began).Seconds()
		}
	}
	return t
}

// memory reads the output of `workload memory`, lines of a name and kB.
func (b *Boot) memory(out string) error {
	kb := map[string]float64{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return fmt.Errorf("read memory: line %q: %w", line, err)
		}
		kb[name] = n
	}
	for _, name := range []string{"MemTotal", "MemAvailable", "PID1VmRSS"} {
		if kb[name] == 0 {
			return fmt.Errorf("read memory: no %s in %q", name, out)
		}
	}
	b.UsedMiB = (kb["MemTotal"] - kb["MemAvailable"]) / 1024
	b.PID1MiB = kb["PID1VmRSS"] / 1024
	return nil
}
