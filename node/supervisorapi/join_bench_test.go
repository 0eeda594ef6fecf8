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
// kube-apiserver, whose share is the cluster's and not this process's. Then all join again, as machines do that restart
// or renew: their passwords are proven. The memory is the most that the process had
// resident, the simulated agents included.
func BenchmarkJoin(b *testing.B) {
	agents := *joining
	server := start(b, Limits{})
	requests := make([][]byte, agents)
	for i := range requests {
		requests[i] = signingRequest(b)
	}
	var all []time.Duration
	var again time.Duration
	for round := 0; b.Loop(); round++ {
		b.StopTimer()
		handlers := server.everything(b)
		passwords := nodePasswords(b) // another cluster, to which all of them are new
		handlers.NodePassword, handlers.NodeQuick = passwords.Check, passwords.Quick
		if err := server.Install(handlers); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		all = append(all, joinAll(b, server.url, byte(10+round%100), requests)...)
		b.StopTimer()
		begin := time.Now()
		joinAll(b, server.url, byte(110+round%100), requests)
		again += time.Since(begin)
		b.StartTimer()
	}
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "agents/s")
	b.ReportMetric(float64(all[len(all)*99/100].Milliseconds()), "p99-ms")
	b.ReportMetric(float64(len(all))/again.Seconds(), "again/s")
	b.ReportMetric(mostResident(b), "peak-MiB")
}

// joinAll has an agent join for each signing request, from addresses of a network, and tells how long each took.
func joinAll(b *testing.B, url string, network byte, requests [][]byte) []time.Duration {
	b.Helper()
	const atOnce = 64
	took := make([]time.Duration, len(requests))
	var group sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i, request := range requests {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			tr := &http.Transport{DialContext: machine(network, i).DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
			defer tr.CloseIdleConnections()
			begin := time.Now()
			if err := join(&http.Client{Transport: tr}, url, fmt.Sprintf("node-%d", i), request); err != nil {
				b.Errorf("agent %d: %v", i, err)
			}
			took[i] = time.Since(begin)
		})
	}
	group.Wait()
	return took
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
