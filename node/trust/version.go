package trust

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/version"
)

// How many minor versions may lie between parts of a cluster (kubernetes.io/releases/version-skew-policy).
const (
	agentsBehind  = 3 // kubelets behind kube-apiserver; never ahead
	serversBehind = 1 // kube-apiservers of one cluster, either way
)

// AgentVersion refuses an agent that the cluster's servers cannot serve. Versions are as Kubernetes writes them, such
// as v1.37.2+keelson1 and v1.36.4+rke2r1.
func AgentVersion(server, agent string) error {
	s, a, err := minors(server, agent)
	switch {
	case err != nil:
		return err
	case a > s:
		return skewed("this agent", agent, server, "agents are never newer than servers: update the servers first, or start the agent with an older image")
	case s-a > agentsBehind:
		return skewed("this agent", agent, server, fmt.Sprintf("agents may be %d minor versions older at most: start the agent with a newer image", agentsBehind))
	}
	return nil
}

// ServerVersion refuses a server that cannot stand beside those of the cluster.
func ServerVersion(cluster, joining string) error {
	c, j, err := minors(cluster, joining)
	if err != nil {
		return err
	}
	if max(c-j, j-c) > serversBehind {
		return skewed("this server", joining, cluster, "servers of one cluster may be one minor version apart: start this one with an image that fits")
	}
	return nil
}

// minors gives the minor versions. Another major version is as far away as can be.
func minors(a, b string) (minorA, minorB int, err error) {
	var out [2]int
	for i, text := range []string{a, b} {
		v, err := version.ParseSemantic(text)
		if err != nil {
			return 0, 0, fmt.Errorf("%w: %q is not a version such as v1.37.2+keelson1", ErrVersion, short(text))
		}
		const majors = 1000
		out[i] = int(v.Major())*majors + int(v.Minor())
	}
	return out[0], out[1], nil
}

func skewed(who, own, cluster, do string) error {
	return fmt.Errorf("%w: %s is of version %s and the cluster of %s; %s", ErrVersion, who, own, cluster, do)
}
