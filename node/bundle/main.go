// Bundle is the multi-call binary of the node: every Kubernetes component, etcd, containerd and the add-ons that
// run as system pods are one file, one inode and one page cache, told apart by the name they are called with.
//
// It does what the upstream main packages do and no more: it reads no configuration of its own and starts nothing
// but the program it was called as. Programs that run anew for every pod (the runtime shim, runc, the CNI plugins,
// pause) are not in it, because the package initialisation of everything else would be paid on each start.
// The image builder makes it and its symbolic links; static pods, the host's tools and node call it.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// applet is one program of the bundle. It finds its arguments in os.Args, as a main function does, and returns the
// exit code.
type applet func() int

// applets is the whole list of programs, by the name each is called with.
func applets() map[string]applet {
	return map[string]applet{
		"node": supervisor,

		"kube-apiserver":          kubeAPIServer,
		"kube-controller-manager": kubeControllerManager,
		"kube-scheduler":          kubeScheduler,
		"kube-proxy":              kubeProxy,
		"kubelet":                 kubelet,
		"kubectl":                 kubectl,

		"etcd":    etcd,
		"etcdctl": etcdctl,
		"etcdutl": etcdutl,

		"containerd": containerd,
		"ctr":        ctr,

		"coredns":                  coreDNS,
		"cloud-controller-manager": cloudControllerManager,
		"flanneld":                 flanneld,
		"network-policy":           networkPolicy,
		"metrics-server":           metricsServer,
		"local-path":               localPath,
		"crictl":                   cri,
	}
}

func main() {
	programs := applets()
	name := filepath.Base(os.Args[0])
	if _, ok := programs[name]; !ok && len(os.Args) > 1 {
		// Called by its own name: the first argument is the program.
		name = os.Args[1]
		os.Args = os.Args[1:]
	}
	run, ok := programs[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "bundle: %q is not one of its programs; call it as, or with the name of: %s\n",
			name, strings.Join(names(programs), " "))
		os.Exit(2)
	}
	if name != "coredns" {
		flag.CommandLine = withoutCoreDNS(name, flag.CommandLine)
	}
	os.Exit(run())
}

func names(programs map[string]applet) []string {
	all := make([]string, 0, len(programs))
	for name := range programs {
		all = append(all, name)
	}
	sort.Strings(all)
	return all
}

// withoutCoreDNS copies the process-wide flag set without the flags that CoreDNS's coremain registers there when it
// is linked. Kubernetes components take the process-wide set over, and CoreDNS's -version would shadow theirs.
func withoutCoreDNS(name string, all *flag.FlagSet) *flag.FlagSet {
	foreign := map[string]bool{
		"conf": true, "plugins": true, "pidfile": true, "version": true,
		"quiet": true, "log-format": true, "dns.port": true, "p": true,
	}
	kept := flag.NewFlagSet(name, flag.ExitOnError)
	all.VisitAll(func(f *flag.Flag) {
		if !foreign[f.Name] {
			kept.Var(f.Value, f.Name, f.Usage)
		}
	})
	return kept
}
