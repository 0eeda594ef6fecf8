package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"keelson/testvm/cidata"
	"keelson/testvm/console"
	"keelson/testvm/lan"
	"keelson/testvm/machine"
	"keelson/testvm/qemu"
)

// Joined is one cluster: a first server, then an agent, then, with the agent's power taken away, a second server. All
// are empty machines. The first server goes on meanwhile, on the same processors of the host.
type Joined struct {
	First  float64 `json:"first_ready_s"`  // power-on to Node Ready
	Agent  float64 `json:"agent_ready_s"`  // power-on to Node Ready
	Voter  float64 `json:"second_voter_s"` // power-on to a vote in etcd
	Second float64 `json:"second_ready_s"` // power-on to Node Ready
	// The steps of the boots from each machine's power-on.
	AgentTimeline  map[string]float64 `json:"agent_timeline_s"`
	SecondTimeline map[string]float64 `json:"second_timeline_s"`
}

// voterMilestone is printed once the own member is promoted and serves (node/server, awaitEtcd).
const voterMilestone = "etcd ready"

const clusterLimit = 40 * time.Minute

func clusters(ctx context.Context, c Config) ([]Joined, error) {
	var all []Joined
	for run := range c.Runs {
		j, err := measureCluster(ctx, c)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(c.Log, "cluster %d of %d: first server Ready after %.1f s, agent after %.1f s, second server votes after %.1f s\n",
			run+1, c.Runs, j.First, j.Agent, j.Voter)
		all = append(all, *j)
	}
	return all, nil
}

func clusterNumbers(all []Joined) []Number {
	var numbers []Number
	for _, l := range []struct {
		name, unit string
		of         func(Joined) float64
	}{
		{"cluster: first server to Node Ready", "s", func(j Joined) float64 { return j.First }},
		{"cluster: agent to Node Ready", "s", func(j Joined) float64 { return j.Agent }},
		{"cluster: agent over first server", "", func(j Joined) float64 { return j.Agent / j.First }},
		{"cluster: second server to etcd voter", "s", func(j Joined) float64 { return j.Voter }},
		{"cluster: second server's vote over first server", "", func(j Joined) float64 { return j.Voter / j.First }},
		{"cluster: second server to Node Ready", "s", func(j Joined) float64 { return j.Second }},
	} {
		var values []float64
		for _, j := range all {
			values = append(values, l.of(j))
		}
		if len(values) > 0 {
			numbers = append(numbers, Number{Name: l.name, Unit: l.unit, Median: Median(values), Runs: len(values)})
		}
	}
	return numbers
}

func clusterAddress(n int) string { return fmt.Sprintf("10.77.0.%d", n) }

// clusterSeed is what the n-th machine is told; the first begins the cluster.
func clusterSeed(n int, role, token string) (cidata.Volume, error) {
	settings := map[string]any{"role": role, "token": token, "node-ip": clusterAddress(n)}
	if n > 1 {
		settings["server"] = "https://" + clusterAddress(1) + ":9345"
	}
	doc, err := cidata.CloudConfig{Hostname: fmt.Sprintf("bench-%d", n), RKE2: settings}.Render()
	if err != nil {
		return cidata.Volume{}, err
	}
	network := fmt.Sprintf("version: 2\nethernets:\n  outside:\n    match: {macaddress: \"52:54:00:12:34:56\"}\n    dhcp4: true\n"+
		"  lan:\n    match: {macaddress: %q}\n    addresses: [%s/24]\n", lan.MAC(byte(n)), clusterAddress(n))
	return cidata.Volume{UserData: doc, NetworkConfig: []byte(network)}, nil
}

func measureCluster(ctx context.Context, c Config) (j *Joined, err error) {
	ctx, cancel := context.WithTimeout(ctx, clusterLimit)
	defer cancel()
	dir, err := os.MkdirTemp("", "lan") // short: its sockets' paths have a limit
	if err != nil {
		return nil, fmt.Errorf("measure cluster: %w", err)
	}
	defer os.RemoveAll(dir)
	net, err := lan.New(lan.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	var all []*machine.Machine
	defer func() {
		for i, m := range all {
			if err != nil {
				report := filepath.Join(c.Dir, "reports", fmt.Sprintf("bench-cluster-%d", i+1))
				err = errors.Join(fmt.Errorf("%w; report: %s", err, report), m.Report(context.WithoutCancel(ctx), report, err.Error(), false))
			}
			err = errors.Join(err, m.Remove())
		}
	}()
	for i, role := range []string{"server", "agent", "server"} {
		port, err := net.Plug(fmt.Sprint(i + 1))
		if err != nil {
			return nil, err
		}
		seed, err := clusterSeed(i+1, role, "8f4c0f3e1d2b4a59b7c6d5e4f3a2b1c0")
		if err != nil {
			return nil, err
		}
		m, err := machine.New(ctx, machine.Config{
			Dir: filepath.Join(c.Dir, fmt.Sprintf("bench-cluster-%d", i+1)), Image: c.Image, Boot: c.Built, Accel: c.Accel,
			Firmware: qemu.Direct, Memory: memory, CPUs: cpus, Seed: seed, LAN: port, MAC: lan.MAC(byte(i + 1)),
			Follow: func(l console.Line) {
				if s, ok := console.ParseStep(l.Text); ok && s.Kind == console.Milestone {
					fmt.Fprintf(c.Log, "  machine %d: %s\n", i+1, l.Text)
				}
			},
		})
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	running, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- net.Run(running) }()
	defer func() { end(); err = errors.Join(err, <-ended) }()
	return observeCluster(ctx, all[0], all[1], all[2])
}

func observeCluster(ctx context.Context, first, agent, second *machine.Machine) (*Joined, error) {
	j := &Joined{}
	if err := first.Start(ctx); err != nil {
		return nil, err
	}
	if err := since(ctx, first, "node Ready", &j.First); err != nil {
		return nil, err
	}
	// Its own pods start after that, and are no part of a join.
	if _, err := first.Milestone(ctx, "system pods Ready"); err != nil {
		return nil, err
	}
	if err := agent.Start(ctx); err != nil {
		return nil, err
	}
	if err := since(ctx, agent, "node Ready", &j.Agent); err != nil {
		return nil, err
	}
	j.AgentTimeline = timeline(agent.Console().Since(agent.Mark()), agent.Started())
	if err := agent.PowerCut(ctx); err != nil {
		return nil, err
	}
	if err := second.Start(ctx); err != nil {
		return nil, err
	}
	if err := since(ctx, second, voterMilestone, &j.Voter); err != nil {
		return nil, err
	}
	if err := since(ctx, second, "node Ready", &j.Second); err != nil {
		return nil, err
	}
	j.SecondTimeline = timeline(second.Console().Since(second.Mark()), second.Started())
	return j, nil
}

// since is the time from a machine's power-on to a milestone.
func since(ctx context.Context, m *machine.Machine, milestone string, to *float64) error {
	line, err := m.Milestone(ctx, milestone)
	if err != nil {
		return fmt.Errorf("measure cluster: %w", err)
	}
	*to = line.At.Sub(m.Started()).Seconds()
	return nil
}
