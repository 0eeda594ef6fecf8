package bench

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// benchmarks are the Go benchmarks whose figures are lines of the table, by part.
func benchmarks(part Part) (pkg, pattern, benchtime string) {
	switch part {
	case LoadBalancer:
		return "keelson/node/loadbalancer", "^Benchmark(Failover|FailoverSilent|Throughput)$", "1s"
	case Join:
		return "keelson/node/supervisorapi", "^BenchmarkJoin$", "1x" // one round is 1,000 agents
	}
	return "", "", ""
}

// goBenchmarks runs a part's benchmarks in a process of their own, c.Runs times, and adds what they say to figures.
func goBenchmarks(ctx context.Context, c Config, part Part, figures map[string][]float64) error {
	pkg, pattern, benchtime := benchmarks(part)
	fmt.Fprintf(c.Log, "%s: go test -bench %s, %d runs\n", part, pattern, c.Runs)
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", pattern, "-benchtime", benchtime,
		"-count", strconv.Itoa(c.Runs), "-timeout", "60m", pkg)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("measure %s: go test %s: %w\n%s%s", part, pkg, err, out, complaints.Bytes())
	}
	if err := parseGoBench(string(out), figures); err != nil {
		return fmt.Errorf("measure %s: %w", part, err)
	}
	for _, l := range goLines() {
		if l.part == part && len(figures[l.figure]) != c.Runs {
			return fmt.Errorf("measure %s: %d runs gave %d figures %s:\n%s", part, c.Runs, len(figures[l.figure]), l.figure, out)
		}
	}
	return nil
}

// parseGoBench reads what `go test -bench` prints (golang.org/design/14313-benchmark-format): lines of a name with the
// number of processors behind it, how often it ran, and pairs of a value and its unit. A figure's name is
// "<benchmark> <unit>".
func parseGoBench(out string, figures map[string][]float64) error {
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		if _, err := strconv.Atoi(fields[1]); err != nil {
			continue // the log of a benchmark
		}
		if len(fields)%2 != 0 {
			return fmt.Errorf("read benchmark %q: a value without a unit", strings.TrimSpace(line))
		}
		name := strings.TrimPrefix(fields[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i >= 0 {
			if _, err := strconv.Atoi(name[i+1:]); err == nil {
				name = name[:i]
			}
		}
		for i := 2; i < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return fmt.Errorf("read benchmark %q: %w", strings.TrimSpace(line), err)
			}
			figure := name + " " + fields[i+1]
			figures[figure] = append(figures[figure], value)
		}
	}
	return nil
}

// goLine is a line of the table that a Go benchmark fills.
type goLine struct {
	part               Part
	figure, name, unit string
	atLeast            float64
}

func goLines() []goLine {
	return []goLine{
		{LoadBalancer, "Failover p50-ms", "load balancer: server's death to next answer, p50", "ms", 0},
		{LoadBalancer, "Failover p99-ms", "load balancer: server's death to next answer, p99", "ms", 0},
		{LoadBalancer, "FailoverSilent p99-ms", "load balancer: the same, death told by tunnel, p99", "ms", 0},
		{LoadBalancer, "Throughput ratio", "load balancer: throughput over bare proxy", "", 0.9},
		{Join, "Join agents/s", "join: agents a second, 1,000 at one supervisor", "/s", 0},
		{Join, "Join again/s", "join: the same agents again, passwords proven", "/s", 0},
		{Join, "Join p99-ms", "join: one of 64 agents at a time, p99", "ms", 0},
		{Join, "Join peak-MiB", "join: peak memory, simulated agents included", "MiB", 0},
	}
}

// runPart tells whether part is to be measured.
func (c Config) runPart(part Part) bool { return c.Part == "" || c.Part == part }
