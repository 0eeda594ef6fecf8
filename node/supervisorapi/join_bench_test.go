package supervisorapi

import (
	"crypto/tls"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"

	"keelson/node/nodepassword"
)

var joining = flag.Int("agents", 1000, "how many agents join in BenchmarkJoin")

// BenchmarkJoin: 1,000 agents join one supervisor over TLS, each from its own address with its own connection, key and
// node password, 64 at a time. The passwords are hashed and kept as on a node; what keeps the Secrets is memory and not
// kube-apiserver, whose share is the cluster's and not this process's. The memory is the most that the process had
// resident, the simulated agents included.
func BenchmarkJoin(b *testing.B) {
	const atOnce = 64
	agents := *joining
	server := start(b, Limits{})
	requests := make([][]byte, agents)
	for i := range requests {
		requests[i] = signingRequest(b)
	}
	var all []time.Duration
	for round := 0; b.Loop(); round++ {
		b.StopTimer()
		handlers := server.everything(b)
		handlers.NodePassword = nodePasswords(b).Check // another cluster, to which all of them are new
		if err := server.Install(handlers); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		took := make([]time.Duration, agents)
		var group sync.WaitGroup
		slots := make(chan struct{}, atOnce)
		for i := range agents {
			slots <- struct{}{}
			group.Go(func() {
				defer func() { <-slots }()
				tr := &http.Transport{DialContext: machine(byte(10+round%200), i).DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
				defer tr.CloseIdleConnections()
				begin := time.Now()
				if err := join(&http.Client{Transport: tr}, server.url, fmt.Sprintf("node-%d", i), requests[i]); err != nil {
					b.Errorf("agent %d: %v", i, err)
				}
				took[i] = time.Since(begin)
			})
		}
		group.Wait()
		all = append(all, took...)
	}
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "agents/s")
	b.ReportMetric(float64(all[len(all)*99/100].Milliseconds()), "p99-ms")
	b.ReportMetric(mostResident(b), "peak-MiB")
}

func nodePasswords(b *testing.B) *nodepassword.Checker {
	b.Helper()
	checker, err := nodepassword.New(nodepassword.Config{Node: "server", File: b.TempDir() + "/password", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	checker.Use(fake.NewClientset())
	return checker
}

// mostResident is VmHWM of this process (man 5 proc_pid_status), in MiB.
func mostResident(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
			if err != nil {
				b.Fatal(err)
			}
			return kb / 1024
		}
	}
	b.Fatal("no VmHWM in /proc/self/status")
	return 0
}
