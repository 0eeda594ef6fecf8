package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Selection says which specs run.
type Selection struct {
	Focus, Skip string // regular expressions for the whole text of a spec; Skip wins
	Procs       int    // how many run side by side; specs that are [Serial] run alone
}

// Default are the specs of conformance for what Keelson brings itself or wires together, and Kubernetes' cases for network
// policies, as far as their images can be made here.
func Default() Selection {
	return Selection{
		Focus: `(DNS|Services|EndpointSlice|ConfigMap|Secrets|Projected|Deployment|ReplicaSet|DaemonSet|StatefulSet|Job|CronJob|EmptyDir|HostPath|Networking).*\[Conformance\]` +
			`|NetworkPolicy between server and client`,
		Skip:  `\[Serial\]|\[Disruptive\]|\[Slow\]|SCTP|Feature:SCTP`,
		Procs: 4,
	}
}

// Result is one spec's.
type Result struct {
	Name    string
	State   string // the suite's: passed, failed, skipped, timedout, panicked, interrupted ...
	Took    time.Duration
	Message string // of one that failed
}

// Passed reports whether the spec ran and held.
func (r Result) Passed() bool { return r.State == "passed" }

// ask runs the suite's program for what it prints.
func (s *Suite) ask(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, s.path("e2e.test"), args...).Output()
	return string(out), err
}

// Run runs the chosen specs against the cluster of the kubeconfig and returns what became of each that was not skipped,
// by name. That some failed is no error. The suite's own words go to out.
func (s *Suite) Run(ctx context.Context, kubeconfig string, which Selection, out io.Writer) ([]Result, error) {
	report := s.path("report.json")
	if err := os.Remove(report); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("run conformance suite: %w", err)
	}
	cmd := exec.CommandContext(ctx, s.path("ginkgo"), "run", "--procs="+strconv.Itoa(which.Procs), "--timeout=6h", "--no-color",
		"--json-report="+"report.json", "--output-dir="+s.dir, "--focus="+which.Focus, "--skip="+which.Skip, s.path("e2e.test"),
		"--", "--provider=skeleton", "--kubeconfig="+kubeconfig, "--disable-log-dump")
	cmd.Stdout, cmd.Stderr = out, out
	ran := cmd.Run()
	data, err := os.ReadFile(report)
	if err != nil {
		return nil, fmt.Errorf("run conformance suite: %w", errors.Join(ran, err))
	}
	results, err := LoadResults(data)
	if err != nil {
		return nil, fmt.Errorf("run conformance suite: %w", err)
	}
	return results, nil
}

// LoadResults parses a report of the suite (ginkgo v2, types.Report as JSON).
func LoadResults(data []byte) ([]Result, error) {
	var reports []struct {
		SpecReports []struct {
			ContainerHierarchyTexts []string
			LeafNodeText            string
			LeafNodeType            string
			State                   string
			RunTime                 time.Duration
			Failure                 struct{ Message string }
		}
	}
	if err := json.Unmarshal(data, &reports); err != nil {
		return nil, fmt.Errorf("read report of the suite: %w", err)
	}
	var results []Result
	for _, r := range reports {
		for _, spec := range r.SpecReports {
			if spec.State == "skipped" || spec.State == "pending" || (spec.LeafNodeType != "It" && spec.State == "passed") {
				continue
			}
			name := strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " ")
			results = append(results, Result{Name: strings.TrimSpace(name), State: spec.State, Took: spec.RunTime, Message: spec.Failure.Message})
		}
	}
	slices.SortFunc(results, func(a, b Result) int { return strings.Compare(a.Name, b.Name) })
	return results, nil
}
