package staticpod

import (
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	corev1 "k8s.io/api/core/v1"

	"keelson/node/config"
)

// flags returns a component's arguments as they stand, in their order.
func flags(t *testing.T, s Server, component, name string) []string {
	t.Helper()
	var values []string
	for _, arg := range render(t, s, component).Spec.Containers[0].Args {
		if value, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			values = append(values, value)
		}
	}
	return values
}

// TestArguments lays a user's settings over ours, by RKE2's rules.
func TestArguments(t *testing.T) {
	for _, c := range []struct {
		name, component string
		args            []string
		flag            string
		want            []string
	}{
		{"ours", APIServer, nil, "profiling", []string{"false"}},
		{"replaced", APIServer, []string{"profiling=true"}, "profiling", []string{"true"}},
		{"new", APIServer, []string{"v=4"}, "v", []string{"4"}},
		{"without a value", Scheduler, []string{"contention-profiling"}, "contention-profiling", []string{"true"}},
		{"empty value", APIServer, []string{"enable-admission-plugins="}, "enable-admission-plugins", []string{""}},
		{"behind ours", APIServer, []string{"enable-admission-plugins+=A"}, "enable-admission-plugins", []string{"NodeRestriction", "A"}},
		{"before ours", APIServer, []string{"enable-admission-plugins-=A"}, "enable-admission-plugins", []string{"A", "NodeRestriction"}},
		{"several times", APIServer, []string{"oidc-required-claim=a=1", "oidc-required-claim=b=2"}, "oidc-required-claim", []string{"a=1", "b=2"}},
		{"equal signs in the value", ControllerManager, []string{"feature-gates=A=true,B=false"}, "feature-gates", []string{"A=true,B=false"}},
		{"of another component", Scheduler, []string{"v=4"}, "v", []string{"4"}},
		{"proxy mode of RKE2", KubeProxy, []string{"proxy-mode=iptables"}, "proxy-mode", []string{"iptables"}},
		{"authorization taken over", APIServer, []string{"authorization-config=/etc/authz.yaml"}, "authorization-mode", nil},
		{"etcd's are for its file", Etcd, []string{"quota-backend-bytes=1"}, "quota-backend-bytes", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := server()
			s.Components = map[string]config.Component{c.component: {Args: c.args}}
			if got := flags(t, s, c.component, c.flag); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestSettingsReachTheirFlags: what node/server fills in must stand where the component reads it.
func TestSettingsReachTheirFlags(t *testing.T) {
	for _, c := range []struct {
		name            string
		change          func(*Server)
		component, flag string
		want            string // "-": the flag is not given
	}{
		{"all addresses by default", func(*Server) {}, APIServer, "bind-address", "0.0.0.0"},
		{"no advertised address", func(*Server) {}, APIServer, "advertise-address", "-"},
		{"advertised address", func(s *Server) { s.AdvertiseAddress = "192.0.2.2" }, APIServer, "advertise-address", "192.0.2.2"},
		{"node ports", func(s *Server) { s.NodePortRange = "1-2" }, APIServer, "service-node-port-range", "1-2"},
		{"services", func(s *Server) { s.ServiceCIDR = "10.0.0.0/16,fd00::/112" }, APIServer, "service-cluster-ip-range", "10.0.0.0/16,fd00::/112"},
		{"services of the controllers", func(s *Server) { s.ServiceCIDR = "10.0.0.0/16" }, ControllerManager, "service-cluster-ip-range", "10.0.0.0/16"},
		{"pods", func(s *Server) { s.ClusterCIDR = "10.1.0.0/16" }, ControllerManager, "cluster-cidr", "10.1.0.0/16"},
		{"pods for kube-proxy", func(s *Server) { s.ClusterCIDR = "10.1.0.0/16" }, KubeProxy, "cluster-cidr", "10.1.0.0/16"},
		{"pods for the cloud controller", func(s *Server) { s.ClusterCIDR = "10.1.0.0/16" }, CloudController, "cluster-cidr", "10.1.0.0/16"},
		{"domain", func(s *Server) { s.ClusterDomain = "x.example" }, APIServer, "service-account-issuer", "https://kubernetes.default.svc.x.example"},
		{"audiences", func(s *Server) { s.ClusterDomain = "x.example" }, APIServer, "api-audiences", "https://kubernetes.default.svc.x.example,rke2"},
		{"node name", func(s *Server) { s.NodeName = "n-9" }, KubeProxy, "hostname-override", "n-9"},
		{"no audit", func(*Server) {}, APIServer, "audit-log-path", "-"},
		{"egress", func(s *Server) { s.EgressConfig = "/var/lib/rancher/rke2/server/etc/egress-selector-config.yaml" }, APIServer, "egress-selector-config-file", "/var/lib/rancher/rke2/server/etc/egress-selector-config.yaml"},
		{"audit", func(s *Server) { s.AuditPolicy = "/etc/rancher/rke2/audit-policy.yaml" }, APIServer, "audit-log-path", "/var/lib/rancher/rke2/server/logs/audit.log"},
		{"no encryption", func(s *Server) { s.EncryptionConfig = "" }, APIServer, "encryption-provider-config-automatic-reload", "-"},
		{"encryption", func(*Server) {}, APIServer, "encryption-provider-config-automatic-reload", "true"},
		{"no admission configuration", func(s *Server) { s.AdmissionConfig = "" }, APIServer, "admission-control-config-file", "-"},
		{"nobody may ask without a name", func(s *Server) { s.AuthenticationConfig = "" }, APIServer, "anonymous-auth", "false"},
		{"another data folder", func(s *Server) { s.DataDir = "/srv/k" }, Etcd, "config-file", "/srv/k/server/db/etcd/config"},
		{"cloud configuration", func(s *Server) { s.CloudConfig = "/x.yaml" }, CloudController, "cloud-config", "/x.yaml"},
		{"controllers that Kubernetes has", func(*Server) {}, ControllerManager, "controllers", "*"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := server()
			c.change(&s)
			got := "-"
			if values := flags(t, s, c.component, c.flag); len(values) > 0 {
				got = strings.Join(values, " ")
			}
			if got != c.want {
				t.Errorf("--%s: got %q, want %q", c.flag, got, c.want)
			}
		})
	}
}

// TestServingIsNeverOpen: what listens for itself must listen on this machine alone, whatever the settings.
func TestServingIsNeverOpen(t *testing.T) {
	for _, component := range []string{ControllerManager, Scheduler, CloudController} {
		if got := flags(t, overridden(), component, "bind-address"); !slices.Equal(got, []string{"127.0.0.1"}) {
			t.Errorf("%s listens on %q", component, got)
		}
	}
	if got := flags(t, overridden(), KubeProxy, "healthz-bind-address"); !slices.Equal(got, []string{"127.0.0.1"}) {
		t.Errorf("kube-proxy tells its health on %q", got)
	}
}

func TestEnvironment(t *testing.T) {
	for _, c := range []struct {
		name          string
		proxy, extra  []string
		variable      string
		want          string
		wantPosition  int // -1: anywhere
		wantVariables int
	}{
		{"search path", nil, nil, "PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", 1, 2},
		{"search path of the user", nil, []string{"PATH=/x"}, "PATH", "/x", 1, 2},
		{"proxy", []string{"HTTPS_PROXY=http://p:3128"}, nil, "HTTPS_PROXY", "http://p:3128", 2, 3},
		{"proxies in the order of their names", []string{"NO_PROXY=a", "HTTPS_PROXY=b"}, nil, "NO_PROXY", "a", 3, 4},
		{"the user's proxy wins", []string{"NO_PROXY=a"}, []string{"NO_PROXY=b"}, "NO_PROXY", "b", 2, 3},
		{"the later of two wins", nil, []string{"A=1", "A=2"}, "A", "2", 2, 3},
		{"empty value", nil, []string{"A="}, "A", "", 2, 3},
		{"equal signs in the value", nil, []string{"GODEBUG=a=1,b=2"}, "GODEBUG", "a=1,b=2", -1, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := server()
			s.ProxyEnv = c.proxy
			s.Components = map[string]config.Component{Scheduler: {ExtraEnv: c.extra}}
			env := render(t, s, Scheduler).Spec.Containers[0].Env
			i := slices.IndexFunc(env, func(e corev1.EnvVar) bool { return e.Name == c.variable })
			if i < 0 || env[i].Value != c.want || c.wantPosition >= 0 && i != c.wantPosition || len(env) != c.wantVariables {
				t.Errorf("got %v, want %s=%q at %d of %d", env, c.variable, c.want, c.wantPosition, c.wantVariables)
			}
		})
	}
	// Proxies come from a map of the supervisor's environment: their order must not make another pod.
	a, b := server(), server()
	a.ProxyEnv, b.ProxyEnv = []string{"A_PROXY=1", "B_PROXY=2"}, []string{"B_PROXY=2", "A_PROXY=1"}
	if render(t, a, Scheduler).UID != render(t, b, Scheduler).UID {
		t.Error("the order of the supervisor's variables makes another pod")
	}
}

func TestResources(t *testing.T) {
	for _, c := range []struct {
		name, component  string
		requests, limits map[string]string
		want             string // cpu/memory requested, cpu/memory limited; 0 where there is none
	}{
		{"etcd", Etcd, nil, nil, "200m/512Mi 0/0"},
		{"kube-apiserver", APIServer, nil, nil, "250m/1Gi 0/0"},
		{"kube-controller-manager", ControllerManager, nil, nil, "200m/256Mi 0/0"},
		{"kube-scheduler", Scheduler, nil, nil, "100m/128Mi 0/0"},
		{"cloud-controller-manager", CloudController, nil, nil, "100m/128Mi 0/0"},
		{"kube-proxy", KubeProxy, nil, nil, "250m/128Mi 0/0"},
		{"one request", Etcd, map[string]string{"etcd-cpu": "1"}, nil, "1/512Mi 0/0"},
		{"both requests", Etcd, map[string]string{"etcd-cpu": "1", "etcd-memory": "2Gi"}, nil, "1/2Gi 0/0"},
		{"another's request", Etcd, map[string]string{"kube-proxy-cpu": "1"}, nil, "200m/512Mi 0/0"},
		{"one limit", Scheduler, nil, map[string]string{"kube-scheduler-memory": "1Gi"}, "100m/128Mi 0/1Gi"},
		{"no request", Scheduler, map[string]string{"kube-scheduler-cpu": "0"}, nil, "0/128Mi 0/0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := server()
			s.Requests, s.Limits = c.requests, c.limits
			r := render(t, s, c.component).Spec.Containers[0].Resources
			got := r.Requests.Cpu().String() + "/" + r.Requests.Memory().String() + " " + r.Limits.Cpu().String() + "/" + r.Limits.Memory().String()
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	s := server()
	s.Limits = map[string]string{"etcd-memory": "1 GB"}
	if _, err := s.Render(Etcd); err == nil || !strings.Contains(err.Error(), "resource limit etcd-memory=1 GB") {
		t.Errorf("bad limit: got %v", err)
	}
}

// probesOf returns every probe's numbers as delay, timeout, failures, period.
func probesOf(t *testing.T, s Server, component string) map[string]timing {
	t.Helper()
	c := render(t, s, component).Spec.Containers[0]
	all := map[string]timing{}
	for kind, p := range map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
		if p != nil {
			all[kind] = timing{p.InitialDelaySeconds, p.TimeoutSeconds, p.FailureThreshold, p.PeriodSeconds}
		}
	}
	return all
}

func TestProbeTimings(t *testing.T) {
	quick, rare, live := timing{0, 15, 250, 1}, timing{0, 15, 3, 10}, timing{10, 15, 8, 10}
	for _, c := range []struct {
		name, component string
		probes          map[string]int32
		want            map[string]timing
	}{
		{"apiserver", APIServer, nil, map[string]timing{"startup": quick, "liveness": live, "readiness": rare}},
		{"etcd has no readiness", Etcd, nil, map[string]timing{"startup": quick, "liveness": live}},
		{"kube-proxy has liveness alone", KubeProxy, nil, map[string]timing{"liveness": live}},
		{"one number of startup brings RKE2's others", Scheduler, map[string]int32{"kube-scheduler-startup-period-seconds": 5},
			map[string]timing{"startup": {10, 15, 24, 5}, "liveness": live, "readiness": rare}},
		{"all numbers of readiness", Scheduler, map[string]int32{
			"kube-scheduler-readiness-initial-delay-seconds": 1, "kube-scheduler-readiness-timeout-seconds": 2,
			"kube-scheduler-readiness-failure-threshold": 3, "kube-scheduler-readiness-period-seconds": 4,
		}, map[string]timing{"startup": quick, "liveness": live, "readiness": {1, 2, 3, 4}}},
		{"another component's number", Scheduler, map[string]int32{"etcd-startup-period-seconds": 5}, map[string]timing{"startup": quick, "liveness": live, "readiness": rare}},
		{"one name that begins like another's", ControllerManager, map[string]int32{"cloud-controller-manager-startup-period-seconds": 5},
			map[string]timing{"startup": quick, "liveness": live, "readiness": rare}},
		{"a probe that is not there", KubeProxy, map[string]int32{"kube-proxy-startup-period-seconds": 5}, map[string]timing{"liveness": live}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := server()
			s.Probes = c.probes
			if got := probesOf(t, s, c.component); !maps.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	// A process a second is too much: RKE2's way to ask is as rare as RKE2 has it.
	s := server()
	s.AuthenticationConfig = ""
	if got := probesOf(t, s, APIServer); got["startup"] != (timing{10, 15, 24, 10}) || got["readiness"].period != 5 {
		t.Errorf("by kubectl: got %v", got)
	}
}

// TestProbeTargets: a wrong port or scheme is a pod that is killed for ever.
func TestProbeTargets(t *testing.T) {
	for _, c := range []struct {
		component                    string
		startup, liveness, readiness string
	}{
		{Etcd, "HTTP 127.0.0.1:2381/health?serializable=true", "HTTP 127.0.0.1:2381/health?serializable=true", ""},
		{APIServer, "HTTPS 127.0.0.1:6443/readyz", "HTTPS 127.0.0.1:6443/livez", "HTTPS 127.0.0.1:6443/readyz"},
		{ControllerManager, "HTTPS 127.0.0.1:10257/healthz", "HTTPS 127.0.0.1:10257/healthz", "HTTPS 127.0.0.1:10257/healthz"},
		{Scheduler, "HTTPS 127.0.0.1:10259/readyz", "HTTPS 127.0.0.1:10259/livez", "HTTPS 127.0.0.1:10259/readyz"},
		{CloudController, "HTTPS 127.0.0.1:10258/healthz", "HTTPS 127.0.0.1:10258/healthz", "HTTPS 127.0.0.1:10258/healthz"},
		{KubeProxy, "", "HTTP 127.0.0.1:10256/livez", ""},
	} {
		container := render(t, server(), c.component).Spec.Containers[0]
		target := func(p *corev1.Probe) string {
			if p == nil {
				return ""
			}
			return string(p.HTTPGet.Scheme) + " " + p.HTTPGet.Host + ":" + p.HTTPGet.Port.String() + p.HTTPGet.Path
		}
		got := [3]string{target(container.StartupProbe), target(container.LivenessProbe), target(container.ReadinessProbe)}
		if want := [3]string{c.startup, c.liveness, c.readiness}; got != want {
			t.Errorf("%s: got %q, want %q", c.component, got, want)
		}
	}
}

// mount returns how a path of the machine is seen in a pod: "file", "dir", "mount" or "socket", with "ro" where it
// cannot be written; "" where it is not mounted.
func mount(pod corev1.Pod, source string) string {
	for i, v := range pod.Spec.Volumes {
		if v.HostPath.Path == source {
			kind := strings.TrimRight(v.Name, "0123456789")
			if pod.Spec.Containers[0].VolumeMounts[i].ReadOnly {
				kind += " ro"
			}
			return kind
		}
	}
	return ""
}

func TestVolumes(t *testing.T) {
	const tls = "/var/lib/rancher/rke2/server/tls/"
	for _, c := range []struct {
		name, component, path, want string
	}{
		{"etcd's data can be written", Etcd, "/var/lib/rancher/rke2/server/db/etcd", "dir"},
		{"etcd's settings are seen through it", Etcd, "/var/lib/rancher/rke2/server/db/etcd/config", ""},
		{"etcd's certificate", Etcd, tls + "etcd/server-client.crt", "file ro"},
		{"etcd does not see the CA's key", Etcd, tls + "server-ca.key", ""},
		{"the server's folder for kube-apiserver", APIServer, "/var/lib/rancher/rke2/server", "dir"},
		{"its admission configuration", APIServer, "/etc/rancher/rke2/rke2-pss.yaml", "file ro"},
		{"public CAs", APIServer, "/etc/ssl/certs", "dir"},
		{"no folder that is not there", APIServer, "/etc/pki/tls/certs", ""},
		{"the scheduler's kubeconfig", Scheduler, "/var/lib/rancher/rke2/server/cred/scheduler.kubeconfig", "file ro"},
		{"what the kubeconfig refers to", Scheduler, tls + "client-scheduler.key", "file ro"},
		{"not the controllers'", Scheduler, tls + "client-controller.key", ""},
		{"signing keys of the controllers", ControllerManager, tls + "client-ca.key", "file ro"},
		{"kube-proxy's kubeconfig", KubeProxy, "/var/lib/rancher/rke2/agent/kubeproxy.kubeconfig", "file ro"},
		{"kube-proxy sees no server key", KubeProxy, tls + "server-ca.key", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := mount(render(t, server(), c.component), c.path); got != c.want {
				t.Errorf("%s: got %q, want %q", c.path, got, c.want)
			}
		})
	}
}

// TestFilesOfArguments: a file that the user's own flag names is mounted and watched as ours are.
func TestFilesOfArguments(t *testing.T) {
	files := fstest.MapFS{
		"etc/policy.yaml":  {Data: []byte("1")},
		"run/plugin.sock":  {Mode: fs.ModeSocket | 0o600},
		"etc/folder/inner": {Data: []byte("1")},
		"etc/k.kubeconfig": {Data: kubeconfig("/etc/folder/inner", "relative")},
	}
	for _, c := range []struct {
		name, arg, path, want string
	}{
		{"file", "policy=/etc/policy.yaml", "/etc/policy.yaml", "file ro"},
		{"file by an unclean path", "policy=/etc/./policy.yaml", "/etc/policy.yaml", "file ro"},
		{"socket", "plugin=unix:///run/plugin.sock", "/run/plugin.sock", "socket"},
		{"folder", "policy=/etc/folder", "/etc/folder", ""},
		{"absent", "policy=/etc/none", "/etc/none", ""},
		{"above the root", "policy=/../etc/policy.yaml", "/etc/policy.yaml", "file ro"},
		{"no path", "policy=etc/policy.yaml", "/etc/policy.yaml", ""},
		{"behind a kubeconfig", "extra-kubeconfig=/etc/k.kubeconfig", "/etc/folder/inner", "file ro"},
		{"behind no kubeconfig", "policy=/etc/k.kubeconfig", "/etc/folder/inner", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := server()
			maps.Copy(s.Files.(fstest.MapFS), files)
			s.Components = map[string]config.Component{Scheduler: {Args: []string{c.arg}}}
			if got := mount(render(t, s, Scheduler), c.path); got != c.want {
				t.Errorf("%s: got %q, want %q", c.path, got, c.want)
			}
		})
	}
	// A change of the user's file starts the pod anew.
	s := server()
	s.Files.(fstest.MapFS)["etc/policy.yaml"] = &fstest.MapFile{Data: []byte("1")}
	s.Components = map[string]config.Component{Scheduler: {Args: []string{"policy=/etc/policy.yaml"}}}
	before := render(t, s, Scheduler)
	s.Files.(fstest.MapFS)["etc/policy.yaml"] = &fstest.MapFile{Data: []byte("2")}
	if render(t, s, Scheduler).UID == before.UID {
		t.Error("a changed file of the user does not make another pod")
	}
}

// TestEveryPodIsCritical: admission refuses the mirror pod, or the kubelet evicts the control plane, otherwise.
func TestEveryPodIsCritical(t *testing.T) {
	for _, component := range components() {
		pod := render(t, server(), component)
		if pod.Spec.PriorityClassName != "system-cluster-critical" || *pod.Spec.Priority != 2000000000 || !pod.Spec.HostNetwork {
			t.Errorf("%s: class %q, priority %d, host network %v", component, pod.Spec.PriorityClassName, *pod.Spec.Priority, pod.Spec.HostNetwork)
		}
		if pod.Namespace != "kube-system" || pod.Labels["tier"] != "control-plane" || pod.Labels["component"] != component {
			t.Errorf("%s: namespace %q, labels %v", component, pod.Namespace, pod.Labels)
		}
		container := pod.Spec.Containers[0]
		if container.ImagePullPolicy != corev1.PullIfNotPresent || !slices.Equal(container.Command, []string{component}) {
			t.Errorf("%s: pull policy %s, command %q", component, container.ImagePullPolicy, container.Command)
		}
		if privileged := container.SecurityContext != nil; privileged != (component == KubeProxy) {
			t.Errorf("%s: privileged is %v", component, privileged)
		}
	}
}

// TestEtcdRemembersItsFirstCluster, and only etcd has that note.
func TestEtcdRemembersItsFirstCluster(t *testing.T) {
	s := server()
	want := `{"initial-advertise-peer-urls":"https://10.0.0.2:2380","initial-cluster":"cp-1-1b2c3d4e=https://10.0.0.2:2380","initial-cluster-state":"new"}`
	if got := render(t, s, Etcd).Annotations["etcd.k3s.io/initial"]; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	s.EtcdInitial = EtcdInitial{}
	if got := render(t, s, Etcd).Annotations["etcd.k3s.io/initial"]; got != "{}" {
		t.Errorf("without: got %s", got)
	}
	if got := render(t, s, Scheduler).Annotations; len(got) != 0 {
		t.Errorf("scheduler: got %v", got)
	}
}

func TestManifestPath(t *testing.T) {
	if got, want := (Server{DataDir: "/d"}).ManifestPath(Etcd), "/d/agent/pod-manifests/etcd.yaml"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
