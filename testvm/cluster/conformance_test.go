package cluster

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keelson/testvm/cidata"
	"keelson/testvm/conformance"
)

var (
	flagConformance = flag.String("conformance", "", "with -netns: a folder to build Kubernetes' end-to-end suite in, which TestConformance runs")
	flagFocus       = flag.String("focus", conformance.Default().Focus, "the specs that TestConformance runs")
	flagSkip        = flag.String("skip", conformance.Default().Skip, "the specs that it leaves out")
	flagProcs       = flag.Int("procs", conformance.Default().Procs, "how many specs run side by side")
)

// conformanceLimit is for all of the specs together.
const conformanceLimit = 3 * time.Hour

// Kubernetes' own specs pass on a server and an agent. It is no part of `make cluster-test`, for it takes long:
// `make conformance`.
func TestConformance(t *testing.T) {
	if *flagConformance == "" {
		t.Skip("SKIPPED: builds Kubernetes' end-to-end suite and runs its specs; ask for it with -conformance (make conformance)")
	}
	c := newCluster(t)
	suite, err := conformance.Build(within(t, conformanceLimit), *flagConformance)
	if err != nil {
		t.Fatal(err)
	}
	missing, err := suite.Push(within(t, conformanceLimit), the.registry)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("    images that cannot be made here:", missing)
	change := func(more map[string]any) func(*cidata.CloudConfig) {
		return func(seed *cidata.CloudConfig) {
			seed.WriteFiles[0].Content += fmt.Sprintf("  registry.k8s.io:\n    endpoint: [\"http://%s\"]\n", c.gateway(the.registry.Port()))
			for key, value := range more {
				seed.RKE2[key] = value
			}
		}
	}
	server := c.add("server-1", "server", 1, change(nil))
	agent := c.add("agent-1", "agent", 2, change(map[string]any{"server": "https://" + c.address(1, 9345)}))
	c.start(server, agent)
	c.whole(c.client(server))
	kubeconfig, err := server.Kubeconfig(within(t, readyLimit))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, kubeconfig, 0o600); err != nil {
		t.Fatal(err)
	}
	results, err := suite.Run(within(t, conformanceLimit), path, conformance.Selection{Focus: *flagFocus, Skip: *flagSkip, Procs: *flagProcs}, os.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	passed := 0
	for _, r := range results {
		fmt.Printf("    %-8s %6.1f s  %s\n", r.State, r.Took.Seconds(), r.Name)
		if r.Passed() {
			passed++
			continue
		}
		t.Errorf("%s: %s: %s", r.Name, r.State, r.Message)
	}
	fmt.Printf("    %d of %d specs passed\n", passed, len(results))
	if passed == 0 {
		t.Error("no spec ran")
	}
}
