package bench

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What `go test -bench` printed, with a log of the benchmark in it.
const printed = `goos: linux
goarch: amd64
pkg: keelson/node/loadbalancer
cpu: Some processor
BenchmarkFailover-2         	    1519	    795022 ns/op	         3.625 max-ms	         0.5940 p50-ms	         1.847 p99-ms
BenchmarkFailover-2         	    1500	    800000 ns/op	         4.000 max-ms	         0.6000 p50-ms	         2 p99-ms
BenchmarkFailoverSilent     	    2000	    500000 ns/op	         1.500 p99-ms
BenchmarkThroughput-2 	      12	  95123456 ns/op	1410.97 MB/s	      1380 balanced-MB/s	         0.9870 ratio
--- BENCH: BenchmarkThroughput-2
    bench_test.go:1: BenchmarkThroughput-2 said 3 words here
BenchmarkNoisy log of it before its figures
PASS
ok  	keelson/node/loadbalancer	6.1s
`

func TestParseGoBench(t *testing.T) {
	figures := map[string][]float64{"Failover p50-ms": {9}}
	if err := parseGoBench(printed, figures); err != nil {
		t.Fatal(err)
	}
	for figure, want := range map[string][]float64{
		"Failover p50-ms": {9, 0.594, 0.6}, "Failover p99-ms": {1.847, 2}, "Failover ns/op": {795022, 800000},
		"FailoverSilent p99-ms": {1.5}, "Throughput ratio": {0.987}, "Throughput MB/s": {1410.97},
	} {
		if got := figures[figure]; !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", figure, got, want)
		}
	}
	for figure := range maps.Keys(figures) {
		if strings.HasPrefix(figure, "Noisy") || strings.Contains(figure, "words") {
			t.Errorf("figure %q was read out of a log", figure)
		}
	}
}

func TestParseGoBenchRefuses(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"a value without a unit", "BenchmarkA-2 1 5 ns/op 7\n", "without a unit"},
		{"no number", "BenchmarkA-2 1 five ns/op\n", "five"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := parseGoBench(c.in, map[string][]float64{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("parseGoBench(%q): got %v, want an error with %q", c.in, err, c.want)
			}
		})
	}
}

func FuzzParseGoBench(f *testing.F) {
	f.Add(printed)
	f.Add("BenchmarkA 1 2 x 3 y\n")
	f.Fuzz(func(t *testing.T, out string) {
		figures := map[string][]float64{}
		_ = parseGoBench(out, figures)
		for name, values := range figures {
			if len(values) == 0 || !strings.Contains(name, " ") {
				t.Errorf("%q: figure %q is %v", out, name, values)
			}
		}
	})
}

// A line of the table whose figure no benchmark reports would stay empty.
func TestGoLinesAreReported(t *testing.T) {
	sources := map[Part]string{LoadBalancer: "../../node/loadbalancer/bench_test.go", Join: "../../node/supervisorapi/join_bench_test.go"}
	for _, l := range goLines() {
		source, err := os.ReadFile(sources[l.part])
		if err != nil {
			t.Fatal(err)
		}
		name, unit, _ := strings.Cut(l.figure, " ")
		for _, want := range []string{"func Benchmark" + name + "(", `"` + unit + `"`} {
			if !bytes.Contains(source, []byte(want)) {
				t.Errorf("%s: %s has no %s", l.figure, sources[l.part], want)
			}
		}
	}
}

func TestGoBenchmarksSayWhatFailed(t *testing.T) {
	t.Setenv("PATH", fakeGo(t, "echo BenchmarkFailover-2 1 5 p50-ms; echo complaint >&2; exit 1"))
	c := Config{Runs: 1, Log: &bytes.Buffer{}}
	if err := goBenchmarks(context.Background(), c, LoadBalancer, map[string][]float64{}); err == nil || !strings.Contains(err.Error(), "complaint") {
		t.Errorf("a test that fails: got %v, want what it said", err)
	}
	t.Setenv("PATH", fakeGo(t, "echo BenchmarkFailover-2 1 5 p50-ms"))
	if err := goBenchmarks(context.Background(), c, LoadBalancer, map[string][]float64{}); err == nil || !strings.Contains(err.Error(), "0 figures") {
		t.Errorf("figures that are absent: got %v, want an error", err)
	}
	t.Setenv("PATH", fakeGo(t, "echo BenchmarkJoin-2 1 5 ns/op 500 again/s 20 agents/s 900 p99-ms 80 peak-MiB"))
	figures := map[string][]float64{}
	if err := goBenchmarks(context.Background(), c, Join, figures); err != nil || !slices.Equal(figures["Join agents/s"], []float64{20}) {
		t.Errorf("join: got %v, %v, want 20 agents/s", figures, err)
	}
}

// fakeGo is a folder with a `go` that does as the script says.
func fakeGo(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
