package config

import (
	"slices"
	"strings"
)

// checkRoles judges what a server leaves out. What is left must be etcd, a control plane, or both: RKE2's three kinds of
// server (k3s pkg/cli/server). A control plane may be without a controller manager or scheduler, which others run.
func (c Config) checkRoles(fail func(key, format string, args ...any)) {
	switch {
	case c.DisableEtcd && c.DisableAPIServer:
		fail("disable-apiserver", "is set beside disable-etcd, which leaves nothing for a server to be; remove one of them, or make the machine an agent")
	case c.DisableEtcd && c.Server == "":
		fail("disable-etcd", "is set and server is not; a server without etcd uses that of a cluster: add server and token, or remove it")
	}
	if !c.DisableAPIServer {
		return
	}
	var missing []string
	for key, set := range map[string]bool{"disable-controller-manager": c.DisableControllerManager, "disable-scheduler": c.DisableScheduler} {
		if !set {
			missing = append(missing, key+": true")
		}
	}
	if len(missing) > 0 {
		fail("disable-apiserver", "is set, and a server without kube-apiserver has etcd alone; add %s", strings.Join(slices.Sorted(slices.Values(missing)), " and "))
	}
}
