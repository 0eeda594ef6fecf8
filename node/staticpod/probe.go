package staticpod

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// probes are the three probes of a component; nil where it has none.
type probes struct {
	startup, liveness, readiness *corev1.Probe
}

// timing is a probe's numbers: delay and period in seconds.
type timing struct {
	delay, timeout, failures, period int32
}

// RKE2's timings (rancher/rke2 pkg/podtemplate, defaultProbeConf).
func rke2Timing(kind string) timing {
	switch kind {
	case "startup":
		return timing{delay: 10, timeout: 15, failures: 24, period: 10}
	case "readiness":
		return timing{delay: 0, timeout: 15, failures: 3, period: 1}
	default:
		return timing{delay: 10, timeout: 15, failures: 8, period: 10}
	}
}

// ourTiming asks every second while a component starts (as long as RKE2 would wait, 250 s) and seldom afterwards: a
// pod is Ready within a second of its readiness, and one that runs is left in peace. Before a startup probe has
// succeeded the kubelet runs no other, and right after it the readiness probe runs once of itself.
func ourTiming(kind string) timing {
	switch kind {
	case "startup":
		return timing{delay: 0, timeout: 15, failures: 250, period: 1}
	case "readiness":
		return timing{delay: 0, timeout: 15, failures: 3, period: 10}
	default:
		return rke2Timing(kind)
	}
}

// httpProbes asks live for startup and liveness, and ready for readiness; no readiness probe when that is "". The
// startup probe asks ready where there is one, because nothing but the pod's readiness waits for it.
func httpProbes(scheme corev1.URIScheme, port int, live, ready string) probes {
	get := func(path string) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Scheme: scheme, Host: "127.0.0.1", Port: intstr.FromInt(port), Path: path,
		}}}
	}
	if ready == "" {
		return probes{startup: get(live), liveness: get(live)}
	}
	return probes{startup: get(ready), liveness: get(live), readiness: get(ready)}
}

// kubectlProbes is RKE2's way to ask a kube-apiserver that answers no anonymous request.
func (s Server) kubectlProbes() probes {
	get := func(path string) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{
			"kubectl", "get", "--server=https://localhost:6443/",
			"--client-certificate=" + s.tls("client-kube-apiserver.crt"),
			"--client-key=" + s.tls("client-kube-apiserver.key"),
			"--certificate-authority=" + s.tls("server-ca.crt"),
			"--raw=" + path,
		}}}}
	}
	return probes{startup: get("/livez"), liveness: get("/livez"), readiness: get("/readyz")}
}

// time gives the probes their numbers: ours, but RKE2's for a probe of which the user sets a part, because a
// threshold means nothing without the period it was thought up for.
func (s Server) time(component string, p *probes) error {
	for kind, probe := range map[string]*corev1.Probe{"startup": p.startup, "liveness": p.liveness, "readiness": p.readiness} {
		if probe == nil {
			continue
		}
		t := ourTiming(kind)
		prefix := component + "-" + kind + "-"
		if probe.Exec != nil || s.sets(prefix) {
			t = rke2Timing(kind)
		}
		if probe.Exec != nil && kind == "readiness" {
			t.period = 5
		}
		for key, value := range s.Probes {
			setting, ok := strings.CutPrefix(key, prefix)
			if !ok {
				continue
			}
			switch setting {
			case "initial-delay-seconds":
				t.delay = value
			case "timeout-seconds":
				t.timeout = value
			case "failure-threshold":
				t.failures = value
			case "period-seconds":
				t.period = value
			default:
				return fmt.Errorf("probe setting %q: %q is not initial-delay-seconds, timeout-seconds, failure-threshold or period-seconds", key, setting)
			}
		}
		probe.InitialDelaySeconds, probe.TimeoutSeconds = t.delay, t.timeout
		probe.FailureThreshold, probe.PeriodSeconds = t.failures, t.period
	}
	return nil
}

func (s Server) sets(prefix string) bool {
	for key := range s.Probes {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}
