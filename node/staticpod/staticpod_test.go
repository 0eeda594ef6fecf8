package staticpod

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"keelson/node/config"
)

var update = flag.Bool("update", false, "write golden files anew")

func components() []string {
	return []string{Etcd, APIServer, ControllerManager, Scheduler, CloudController, KubeProxy}
}

// machine is the files of a server after node/pki and the other renderers have run.
func machine() fstest.MapFS {
	files := fstest.MapFS{
		"etc/ssl/certs/ca-certificates.crt":               {Data: []byte("public")},
		"etc/rancher/rke2/rke2-pss.yaml":                  {Data: []byte("pss")},
		"etc/rancher/rke2/audit-policy.yaml":              {Data: []byte("audit")},
		"var/lib/rancher/rke2/server/db/etcd/config":      {Data: []byte("name: a")},
		"var/lib/rancher/rke2/agent/server-ca.crt":        {Data: []byte("ca")},
		"var/lib/rancher/rke2/agent/client-kp.crt":        {Data: []byte("kp")},
		"var/lib/rancher/rke2/agent/client-kp.key":        {Data: []byte("kpk")},
		"var/lib/rancher/rke2/agent/kubeproxy.kubeconfig": {Data: kubeconfig("/var/lib/rancher/rke2/agent/server-ca.crt", "/var/lib/rancher/rke2/agent/client-kp")},
	}
	tls := "var/lib/rancher/rke2/server/tls/"
	for _, name := range []string{
		"server-ca.crt", "server-ca.key", "server-ca.nochain.crt", "client-ca.crt", "client-ca.key", "client-ca.nochain.crt",
		"request-header-ca.crt", "service.key", "service.current.key",
		"serving-kube-apiserver.crt", "serving-kube-apiserver.key", "client-kube-apiserver.crt", "client-kube-apiserver.key",
		"client-auth-proxy.crt", "client-auth-proxy.key", "client-controller.crt", "client-controller.key",
		"client-scheduler.crt", "client-scheduler.key", "client-rke2-cloud-controller.crt", "client-rke2-cloud-controller.key",
		"kube-scheduler/kube-scheduler.crt", "kube-scheduler/kube-scheduler.key",
		"kube-controller-manager/kube-controller-manager.crt", "kube-controller-manager/kube-controller-manager.key",
		"etcd/server-ca.crt", "etcd/peer-ca.crt", "etcd/client.crt", "etcd/client.key",
		"etcd/server-client.crt", "etcd/server-client.key", "etcd/peer-server-client.crt", "etcd/peer-server-client.key",
	} {
		files[tls+name] = &fstest.MapFile{Data: []byte(name)}
	}
	for name, user := range map[string]string{"controller": "client-controller", "scheduler": "client-scheduler", "cloud-controller": "client-rke2-cloud-controller"} {
		files["var/lib/rancher/rke2/server/cred/"+name+".kubeconfig"] = &fstest.MapFile{Data: kubeconfig("/"+tls+"server-ca.crt", "/"+tls+user)}
	}
	for name, content := range map[string]string{"etc/authentication-config.yaml": "authn", "etc/cloud-config.yaml": "{}", "cred/encryption-config.json": "enc"} {
		files["var/lib/rancher/rke2/server/"+name] = &fstest.MapFile{Data: []byte(content)}
	}
	return files
}

func kubeconfig(ca, user string) []byte {
	return []byte("apiVersion: v1\nclusters:\n- name: local\n  cluster:\n    server: https://127.0.0.1:6443\n    certificate-authority: " + ca +
		"\nusers:\n- name: user\n  user:\n    client-certificate: " + user + ".crt\n    client-key: " + user + ".key\n")
}

func server() Server {
	s := Server{
		DataDir:              "/var/lib/rancher/rke2",
		NodeName:             "cp-1",
		Images:               map[string]string{},
		ClusterCIDR:          "10.42.0.0/16",
		ServiceCIDR:          "10.43.0.0/16",
		ListenAddress:        "0.0.0.0",
		NodePortRange:        "30000-32767",
		ClusterDomain:        "cluster.local",
		AuthenticationConfig: "/var/lib/rancher/rke2/server/etc/authentication-config.yaml",
		EncryptionConfig:     "/var/lib/rancher/rke2/server/cred/encryption-config.json",
		AdmissionConfig:      "/etc/rancher/rke2/rke2-pss.yaml",
		CloudConfig:          "/var/lib/rancher/rke2/server/etc/cloud-config.yaml",
		EtcdInitial:          EtcdInitial{AdvertisePeerURL: "https://10.0.0.2:2380", Cluster: "cp-1-1b2c3d4e=https://10.0.0.2:2380", State: "new"},
		Files:                machine(),
	}
	for _, c := range components() {
		s.Images[c] = "registry.keelson.internal/" + c + ":v1"
	}
	return s
}

// overridden is a server whose user changed something of every kind.
func overridden() Server {
	s := server()
	s.AdvertiseAddress = "192.0.2.7"
	s.AuditPolicy = "/etc/rancher/rke2/audit-policy.yaml"
	s.ProxyEnv = []string{"NO_PROXY=.svc", "HTTPS_PROXY=http://proxy:3128"}
	s.Requests = map[string]string{"kube-apiserver-cpu": "500m", "etcd-memory": "1Gi"}
	s.Limits = map[string]string{"kube-scheduler-memory": "256Mi"}
	s.Probes = map[string]int32{"kube-apiserver-startup-failure-threshold": 48, "etcd-liveness-timeout-seconds": 30, "kube-scheduler-readiness-period-seconds": 2}
	s.Components = map[string]config.Component{
		APIServer: {
			Args:       []string{"audit-log-maxage=7", "enable-admission-plugins+=PodNodeSelector", "api-audiences-=first", "anonymous-auth=true"},
			ExtraEnv:   []string{"GODEBUG=x=1", "NO_PROXY=.svc,.local"},
			ExtraMount: []string{"/etc/rancher/rke2/audit-policy.yaml:/etc/policy.yaml:ro", "/srv/hooks:/hooks:rw:Directory"},
		},
		KubeProxy: {Args: []string{"proxy-mode=iptables"}},
		Etcd:      {Args: []string{"quota-backend-bytes=1"}},
	}
	return s
}

// dualStack and onlyIPv6 are servers of clusters of such networks.
func dualStack() Server {
	s := server()
	s.ClusterCIDR, s.ServiceCIDR, s.ListenAddress = "10.42.0.0/16,fd00:42::/56", "10.43.0.0/16,fd00:43::/112", "::"
	s.AdvertiseAddress = "10.0.0.2"
	return s
}

func onlyIPv6() Server {
	s := server()
	s.ClusterCIDR, s.ServiceCIDR, s.ListenAddress = "fd00:42::/56", "fd00:43::/112", "::"
	s.AdvertiseAddress = "fd00::2"
	s.EtcdInitial = EtcdInitial{AdvertisePeerURL: "https://[fd00::2]:2380", Cluster: "cp-1-1b2c3d4e=https://[fd00::2]:2380", State: "new"}
	return s
}

func TestRender(t *testing.T) {
	for name, s := range map[string]Server{"default": server(), "overridden": overridden(), "dual-stack": dualStack(), "ipv6": onlyIPv6()} {
		for _, component := range components() {
			t.Run(name+"/"+component, func(t *testing.T) {
				got, err := s.Render(component)
				if err != nil {
					t.Fatal(err)
				}
				golden(t, filepath.Join("testdata", name, component+".yaml"), got)
				var pod corev1.Pod
				if err := yaml.UnmarshalStrict(got, &pod); err != nil {
					t.Fatalf("the API does not read it: %v", err)
				}
				if len(pod.UID) != 32 {
					t.Errorf("uid %q is not an md5", pod.UID)
				}
			})
		}
	}
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (run with -update after a wanted change); got:\n%s", file, got)
	}
}

func render(t *testing.T, s Server, component string) corev1.Pod {
	t.Helper()
	out, err := s.Render(component)
	if err != nil {
		t.Fatal(err)
	}
	var pod corev1.Pod
	if err := yaml.Unmarshal(out, &pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

func hash(pod corev1.Pod) string {
	for _, e := range pod.Spec.Containers[0].Env {
		if e.Name == "FILE_HASH" {
			return e.Value
		}
	}
	return ""
}

// A pod gets another identity when a file it reads at start has changed, and only then.
func TestIdentity(t *testing.T) {
	for _, c := range []struct {
		name, component, file string
		changes               bool
	}{
		{"own certificate", APIServer, "var/lib/rancher/rke2/server/tls/serving-kube-apiserver.crt", true},
		{"file of its kubeconfig", Scheduler, "var/lib/rancher/rke2/server/tls/client-scheduler.crt", true},
		{"settings of etcd", Etcd, "var/lib/rancher/rke2/server/db/etcd/config", true},
		{"peer certificate of etcd", Etcd, "var/lib/rancher/rke2/server/tls/etcd/peer-server-client.crt", true},
		{"reloaded encryption keys", APIServer, "var/lib/rancher/rke2/server/cred/encryption-config.json", false},
		{"another's certificate", Scheduler, "var/lib/rancher/rke2/server/tls/client-controller.crt", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := server()
			before, again := render(t, s, c.component), render(t, s, c.component)
			if before.UID != again.UID {
				t.Fatal("two renderings differ")
			}
			s.Files.(fstest.MapFS)[c.file] = &fstest.MapFile{Data: []byte("renewed")}
			after := render(t, s, c.component)
			if got := before.UID != after.UID; got != c.changes {
				t.Errorf("uid changed: %v, want %v", got, c.changes)
			}
			if got := hash(before) != hash(after); got != c.changes {
				t.Errorf("FILE_HASH changed: %v, want %v", got, c.changes)
			}
		})
	}
}

// Every file that an argument names must be visible in the pod.
func TestArgumentsAreMounted(t *testing.T) {
	s := overridden()
	for _, component := range components() {
		pod := render(t, s, component)
		container := pod.Spec.Containers[0]
		for _, arg := range container.Args {
			_, value, _ := strings.Cut(arg, "=")
			if _, exists := s.Files.(fstest.MapFS)[strings.TrimPrefix(value, "/")]; !exists {
				continue
			}
			if !slices.ContainsFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool {
				return m.MountPath == value || strings.HasPrefix(value, m.MountPath+"/")
			}) {
				t.Errorf("%s: %s is not mounted", component, arg)
			}
		}
		names := map[string]bool{}
		for _, v := range pod.Spec.Volumes {
			if names[v.Name] {
				t.Errorf("%s: volume %s twice", component, v.Name)
			}
			names[v.Name] = true
		}
	}
}

func TestProbesOfAPIServer(t *testing.T) {
	for _, c := range []struct {
		name      string
		args      []string
		exec      bool
		anonymous string
		file      bool
	}{
		{"ours", nil, false, "", true},
		{"with OpenID Connect", []string{"oidc-issuer-url=https://id"}, false, "", true},
		{"anonymous by the user", []string{"anonymous-auth=true"}, true, "true", false},
		{"authentication by the user", []string{"authentication-config=/etc/a.yaml"}, true, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := server()
			s.Components = map[string]config.Component{APIServer: {Args: c.args}}
			container := render(t, s, APIServer).Spec.Containers[0]
			for _, p := range []*corev1.Probe{container.StartupProbe, container.LivenessProbe, container.ReadinessProbe} {
				if got := p.Exec != nil; got != c.exec {
					t.Errorf("exec probe: %v, want %v", got, c.exec)
				}
			}
			flags := map[string]string{}
			for _, arg := range container.Args {
				name, value, _ := strings.Cut(arg, "=")
				flags[name] = value
			}
			if flags["--anonymous-auth"] != c.anonymous {
				t.Errorf("anonymous-auth %q, want %q", flags["--anonymous-auth"], c.anonymous)
			}
			if _, got := flags["--authentication-config"]; got != c.file {
				t.Errorf("authentication-config: %v, want %v", got, c.file)
			}
		})
	}
}

func TestRenderRefuses(t *testing.T) {
	with := func(change func(*Server)) Server {
		s := server()
		change(&s)
		return s
	}
	for name, c := range map[string]struct {
		server    Server
		component string
		want      string
	}{
		"unknown component":     {server(), "kube-dns", "not a component"},
		"no image":              {with(func(s *Server) { delete(s.Images, Etcd) }), Etcd, "no image"},
		"argument":              {with(func(s *Server) { s.Components = map[string]config.Component{Scheduler: {Args: []string{"=x"}}} }), Scheduler, "name=value"},
		"argument of apiserver": {with(func(s *Server) { s.Components = map[string]config.Component{APIServer: {Args: []string{"=x"}}} }), APIServer, "name=value"},
		"environment":           {with(func(s *Server) { s.Components = map[string]config.Component{Scheduler: {ExtraEnv: []string{"X"}}} }), Scheduler, "NAME=value"},
		"quantity":              {with(func(s *Server) { s.Requests = map[string]string{"etcd-cpu": "lots"} }), Etcd, "etcd-cpu=lots"},
		"probe setting":         {with(func(s *Server) { s.Probes = map[string]int32{"etcd-liveness-patience": 3} }), Etcd, "patience"},
		"kubeconfig": {with(func(s *Server) {
			s.Files.(fstest.MapFS)["var/lib/rancher/rke2/server/cred/scheduler.kubeconfig"] = &fstest.MapFile{Data: []byte("{")}
		}), Scheduler, "scheduler.kubeconfig"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.server.Render(c.component)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestExtraMount(t *testing.T) {
	s := server()
	for _, c := range []struct {
		text string
		want extraMount
		bad  bool
	}{
		{text: "/srv:/data", want: extraMount{"/srv", "/data", corev1.HostPathDirectoryOrCreate, false}},
		{text: "/etc/ssl:/ssl:ro", want: extraMount{"/etc/ssl", "/ssl", corev1.HostPathDirectoryOrCreate, true}},
		{text: "/etc/rancher/rke2/rke2-pss.yaml:/x:rw", want: extraMount{"/etc/rancher/rke2/rke2-pss.yaml", "/x", corev1.HostPathFile, false}},
		{text: "/a:/b:ro:Socket", want: extraMount{"/a", "/b", corev1.HostPathSocket, true}},
		{text: "/a", bad: true},
		{text: "a:/b", bad: true},
		{text: "/a:b", bad: true},
		{text: "/a:/b:maybe", bad: true},
		{text: "/a:/b:ro:Thing", bad: true},
		{text: "/a:/b:ro:File:x", bad: true},
	} {
		got, err := s.extraMount(c.text)
		if (err != nil) != c.bad || (err == nil && got != c.want) {
			t.Errorf("%s: got %+v, %v; want %+v, error %v", c.text, got, err, c.want, c.bad)
		}
	}
}

func FuzzExtraMount(f *testing.F) {
	f.Add("/a:/b:ro:Socket")
	s := server()
	f.Fuzz(func(t *testing.T, text string) {
		m, err := s.extraMount(text)
		if err == nil && (!filepath.IsAbs(m.source) || !filepath.IsAbs(m.target)) {
			t.Errorf("%q gives relative paths %+v", text, m)
		}
	})
}

func TestUserTimingKeepsRKE2sOtherNumbers(t *testing.T) {
	got := map[string]timing{}
	for name, s := range map[string]Server{"default": server(), "overridden": overridden()} {
		p := render(t, s, APIServer).Spec.Containers[0].StartupProbe
		got[name] = timing{p.InitialDelaySeconds, p.TimeoutSeconds, p.FailureThreshold, p.PeriodSeconds}
	}
	want := map[string]timing{"default": {0, 15, 250, 1}, "overridden": {10, 15, 48, 10}}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
