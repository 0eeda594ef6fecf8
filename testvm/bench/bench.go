// Package bench measures what the project promises in numbers: how much longer
// than etcd and kube-apiserver alone a node takes to be Ready, how long PID 1
// works, what memory is in use, how large the image is, how fast it is rebuilt.
//
// It starts machines by package machine and, for the floor, a bare kernel by
// package qemu. The image and the programs come from imagebuild's output
// folder. Command testvm prints the result and keeps it. It judges nothing: a
// limit that is missed is shown, not an error.
package bench

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"
)

// Config says what to measure.
type Config struct {
	Image   string        // the raw image
	Built   string        // imagebuild's folder: vmlinuz, initrd, cmdline, bin/bundle
	Dir     string        // for the machines' files
	Accel   string        // of qemu.Probe
	Runs    int           // of each measurement; the median counts
	Settle  time.Duration // from Ready to the look at the memory; 0 leaves the memory out
	Rebuild bool          // measure the rebuild, for which a file is put into init/ and taken away again
	Part    Part          // what alone is measured; empty: everything
	Log     io.Writer     // says what is being done
}

// Part is one of the things that can be measured alone.
type Part string

// The parts.
const (
	Node         Part = "node"         // floor, first boots, sizes, rebuild
	LoadBalancer Part = "loadbalancer" // the client load balancer
	Join         Part = "join"         // agents at one supervisor
	Cluster      Part = "cluster"      // a second machine's way into a cluster
)

// Parts are all of them.
func Parts() []Part { return []Part{Node, LoadBalancer, Join, Cluster} }

// Machines tells whether the part needs an image, and QEMU.
func (p Part) Machines() bool { return p != LoadBalancer && p != Join }

// Machine of every measurement.
const (
	memory = 4096 // MiB
	cpus   = 2
)

// Boot is one first boot of the raw image by direct kernel start.
type Boot struct {
	Ready    float64            `json:"ready_s"`    // QEMU's start to Node Ready, seen by a watch
	Console  float64            `json:"console_s"`  // the same, seen on the console
	Pods     float64            `json:"pods_s"`     // power-on to the console's line that every pod of kube-system is Ready
	CPU      float64            `json:"cpu_s"`      // processor time of QEMU until Ready
	Foreign  float64            `json:"foreign_s"`  // processor time of everything else on the host meanwhile
	Complete float64            `json:"complete_s"` // kernel's start to PID 1's last own step
	Timeline map[string]float64 `json:"timeline_s"` // QEMU's start to each line of the boot
	UsedMiB  float64            `json:"used_mib,omitempty"`
	PID1MiB  float64            `json:"pid1_mib,omitempty"`
}

// Result is everything that was measured.
type Result struct {
	When     time.Time `json:"when"`
	Accel    string    `json:"accel"`
	HostCPUs int       `json:"host_cpus"`
	CPUs     int       `json:"cpus"`
	MiB      int       `json:"memory_mib"`
	Floor    []float64 `json:"floor_s"`
	FloorCPU []float64 `json:"floor_cpu_s"`
	// FloorForeign is the processor time of everything else on the host.
	FloorForeign []float64 `json:"floor_foreign_s"`
	Boots        []Boot    `json:"boots"`
	RawMB        float64   `json:"raw_mb"`
	ZstdMB       float64   `json:"zstd_mb,omitempty"`
	Rebuilt      Rebuilt   `json:"rebuilt"`
	// Go is what the Go benchmarks said, by "<benchmark> <unit>".
	Go       map[string][]float64 `json:"go,omitempty"`
	Clusters []Joined             `json:"clusters,omitempty"`
	Numbers  []Number             `json:"numbers"`
}

// Number is one line of the table.
type Number struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Median float64 `json:"median"`
	Limit  float64 `json:"limit,omitempty"` // it must not be more
	// AtLeast is what it must not be less than.
	AtLeast float64 `json:"at_least,omitempty"`
	Runs    int     `json:"runs"`
}

// Run measures.
func Run(ctx context.Context, c Config) (*Result, error) {
	r := &Result{When: time.Now().UTC().Truncate(time.Second), Accel: c.Accel, HostCPUs: runtime.NumCPU(), CPUs: cpus, MiB: memory, Go: map[string][]float64{}}
	for _, part := range Parts() {
		if !c.runPart(part) {
			continue
		}
		var err error
		switch part {
		case Node:
			err = r.node(ctx, c)
		case Cluster:
			r.Clusters, err = clusters(ctx, c)
		default:
			err = goBenchmarks(ctx, c, part, r.Go)
		}
		if err != nil {
			return nil, err
		}
	}
	r.Numbers = r.numbers()
	return r, nil
}

// node measures floor and boot by turns, so that a host that gets slower meanwhile does not favour one of them.
func (r *Result) node(ctx context.Context, c Config) error {
	floor, err := newFloor(ctx, c)
	if err != nil {
		return err
	}
	node, err := newNode(ctx, c)
	if err != nil {
		return err
	}
	defer node.close()
	for run := range c.Runs {
		took, cpu, foreign, err := floor.measure(ctx)
		if err != nil {
			return err
		}
		r.Floor, r.FloorCPU = append(r.Floor, took.Seconds()), append(r.FloorCPU, cpu.Seconds())
		r.FloorForeign = append(r.FloorForeign, foreign.Seconds())
		fmt.Fprintf(c.Log, "run %d of %d: floor %.1f s\n", run+1, c.Runs, took.Seconds())
		boot, err := node.measure(ctx)
		if err != nil {
			return err
		}
		r.Boots = append(r.Boots, *boot)
		fmt.Fprintf(c.Log, "run %d of %d: Ready after %.1f s, PID 1 done after %.2f s\n", run+1, c.Runs, boot.Ready, boot.Complete)
	}
	if err := r.sizes(ctx, c); err != nil {
		return err
	}
	if c.Rebuild {
		r.Rebuilt, err = rebuilds(ctx, c)
	}
	return err
}

// disturbed are the runs during which the host did more than a tenth of its
// work for others, whose times on the wall are worth little.
func (r *Result) disturbed() int {
	n := 0
	for i, b := range r.Boots {
		if b.Foreign > b.CPU/10 || r.FloorForeign[i] > r.FloorCPU[i]/10 {
			n++
		}
	}
	return n
}

// numbers are the lines of the table, with the limits of the project.
func (r *Result) numbers() []Number {
	of := func(get func(Boot) float64) []float64 {
		var all []float64
		for _, b := range r.Boots {
			if v := get(b); v > 0 {
				all = append(all, v)
			}
		}
		return all
	}
	var ratios, pods, work []float64
	for i, b := range r.Boots {
		ratios = append(ratios, b.Ready/r.Floor[i])
		if b.Pods > 0 {
			pods = append(pods, b.Pods/r.Floor[i])
		}
		work = append(work, b.CPU/r.FloorCPU[i])
	}
	lines := []struct {
		name, unit string
		values     []float64
		limit      float64
	}{
		{"floor: etcd and kube-apiserver to /readyz", "s", r.Floor, 0},
		{"power-on to Node Ready, first boot", "s", of(func(b Boot) float64 { return b.Ready }), 0},
		{"boot ratio: Node Ready over floor", "", ratios, 2.0},
		{"boot ratio: all pods of kube-system Ready over floor", "", pods, 2.2},
		{"Node Ready over floor in processor time of QEMU", "", work, 0},
		{"kernel start to PID 1's last own step", "s", of(func(b Boot) float64 { return b.Complete }), 4},
		{"memory in use after Ready", "MiB", of(func(b Boot) float64 { return b.UsedMiB }), 1.2 * 1024},
		{"PID 1 resident", "MiB", of(func(b Boot) float64 { return b.PID1MiB }), 30},
		{"raw image", "MB", single(r.RawMB), 420},
		{"raw image, zstd -19", "MB", single(r.ZstdMB), 130},
		{"rebuild after an edit in init/", "s", r.Rebuilt.Raw, 10},
		{"rebuild of the ISO after such an edit", "s", r.Rebuilt.ISO, 15},
		{"peak memory of imagebuild", "MB", r.Rebuilt.PeakMB, 300},
	}
	var all []Number
	for _, l := range lines {
		if len(l.values) > 0 {
			all = append(all, Number{Name: l.name, Unit: l.unit, Median: Median(l.values), Limit: l.limit, Runs: len(l.values)})
		}
	}
	for _, l := range goLines() {
		if values := r.Go[l.figure]; len(values) > 0 {
			all = append(all, Number{Name: l.name, Unit: l.unit, Median: Median(values), AtLeast: l.atLeast, Runs: len(values)})
		}
	}
	return append(all, clusterNumbers(r.Clusters)...)
}

func single(v float64) []float64 {
	if v == 0 {
		return nil
	}
	return []float64{v}
}

// Median of some values; of an even number of them, the mean of the two in the
// middle. Zero for none.
func Median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	switch n := len(s); {
	case n == 0:
		return 0
	case n%2 == 1:
		return s[n/2]
	default:
		return (s[n/2-1] + s[n/2]) / 2
	}
}
