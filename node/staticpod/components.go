package staticpod

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"

	"keelson/node/argument"
)

// RKE2's defaults of the six cipher suites that TLS 1.2 clients may use (k3s pkg/cli/cmds, defaultCipherSuites).
const cipherSuites = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384," +
	"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256," +
	"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"

// volumePlugins is where RKE2's kubelet and controller manager look for flexvolume drivers.
const volumePlugins = "/var/lib/kubelet/volumeplugins"

func (s Server) etcd() (definition, error) {
	initial, err := json.Marshal(s.EtcdInitial)
	if err != nil {
		return definition{}, fmt.Errorf("render etcd's first membership: %w", err)
	}
	data := path.Join(s.server(), "db/etcd")
	return definition{
		name: Etcd,
		args: map[string]string{"config-file": path.Join(data, "config")},
		// etcd-arg settings go into that file: etcd ignores its flags when it has one.
		argsElse: true,
		dirs:     []string{data},
		files: []string{
			s.tls("etcd/server-client.crt"), s.tls("etcd/server-client.key"), s.tls("etcd/server-ca.crt"),
			s.tls("etcd/peer-server-client.crt"), s.tls("etcd/peer-server-client.key"), s.tls("etcd/peer-ca.crt"),
		},
		annotations: map[string]string{"etcd.k3s.io/initial": string(initial)},
		requests:    resources("200m", "512Mi"),
		probes:      httpProbes("HTTP", 2381, "/health?serializable=true", ""),
	}, nil
}

func (s Server) apiServer() (definition, error) {
	issuer := "https://kubernetes.default.svc." + s.ClusterDomain
	args := map[string]string{
		"storage-backend":                    "etcd3",
		"etcd-servers":                       "https://127.0.0.1:2379",
		"etcd-cafile":                        s.tls("etcd/server-ca.crt"),
		"etcd-certfile":                      s.tls("etcd/client.crt"),
		"etcd-keyfile":                       s.tls("etcd/client.key"),
		"cert-dir":                           s.tls("temporary-certs"),
		"allow-privileged":                   "true",
		"enable-bootstrap-token-auth":        "true",
		"authorization-mode":                 "Node,RBAC",
		"service-account-signing-key-file":   s.tls("service.current.key"),
		"service-account-key-file":           s.tls("service.key"),
		"service-account-issuer":             issuer,
		"api-audiences":                      issuer + ",rke2",
		"service-cluster-ip-range":           s.ServiceCIDR,
		"service-node-port-range":            s.NodePortRange,
		"secure-port":                        "6443",
		"bind-address":                       s.ListenAddress,
		"enable-aggregator-routing":          "true",
		"tls-cert-file":                      s.tls("serving-kube-apiserver.crt"),
		"tls-private-key-file":               s.tls("serving-kube-apiserver.key"),
		"tls-min-version":                    "VersionTLS12",
		"tls-cipher-suites":                  cipherSuites,
		"kubelet-certificate-authority":      s.tls("server-ca.crt"),
		"kubelet-client-certificate":         s.tls("client-kube-apiserver.crt"),
		"kubelet-client-key":                 s.tls("client-kube-apiserver.key"),
		"kubelet-preferred-address-types":    "InternalIP,ExternalIP,Hostname",
		"requestheader-client-ca-file":       s.tls("request-header-ca.crt"),
		"requestheader-allowed-names":        "system:auth-proxy",
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-username-headers":     "X-Remote-User",
		"proxy-client-cert-file":             s.tls("client-auth-proxy.crt"),
		"proxy-client-key-file":              s.tls("client-auth-proxy.key"),
		"client-ca-file":                     s.tls("client-ca.crt"),
		"enable-admission-plugins":           "NodeRestriction",
		"profiling":                          "false",
	}
	set(args, "advertise-address", s.AdvertiseAddress)
	set(args, "admission-control-config-file", s.AdmissionConfig)
	set(args, "egress-selector-config-file", s.EgressConfig)
	var unhashed []string
	if s.EncryptionConfig != "" {
		args["encryption-provider-config"] = s.EncryptionConfig
		args["encryption-provider-config-automatic-reload"] = "true"
		unhashed = append(unhashed, s.EncryptionConfig)
	}
	logs := path.Join(s.server(), "logs")
	if s.AuditPolicy != "" {
		args["audit-policy-file"] = s.AuditPolicy
		args["audit-log-path"] = path.Join(logs, "audit.log")
		args["audit-log-maxage"] = "30"
		args["audit-log-maxbackup"] = "10"
		args["audit-log-maxsize"] = "100"
	}

	names, err := argument.Names(s.Components[APIServer].Args)
	if err != nil {
		return definition{}, err
	}
	// RKE2 asks the API server's health by running kubectl with a certificate once a second. We let anonymous
	// requests read the two health paths, which costs a request where that costs a process. A user who takes
	// authentication over gets RKE2's way.
	ready := httpProbes("HTTPS", 6443, "/livez", "/readyz")
	switch {
	case slices.Contains(names, "authentication-config"):
		ready = s.kubectlProbes()
	case slices.Contains(names, "anonymous-auth"), s.AuthenticationConfig == "":
		ready = s.kubectlProbes()
		args["anonymous-auth"] = "false"
	default:
		args["authentication-config"] = s.AuthenticationConfig
	}
	if slices.Contains(names, "authorization-config") {
		delete(args, "authorization-mode")
	}

	return definition{
		name:     APIServer,
		args:     args,
		dirs:     append([]string{s.server()}, s.certificateDirs()...),
		unhashed: unhashed,
		requests: resources("250m", "1024Mi"),
		probes:   ready,
	}, nil
}

func (s Server) controllerManager() definition {
	kubeconfig := s.cred("controller.kubeconfig")
	args := map[string]string{
		"controllers":                      "*", // RKE2 adds tokencleaner; see jointoken.Cleaner
		"kubeconfig":                       kubeconfig,
		"authentication-kubeconfig":        kubeconfig,
		"authorization-kubeconfig":         kubeconfig,
		"service-account-private-key-file": s.tls("service.current.key"),
		"allocate-node-cidrs":              "true",
		"cluster-cidr":                     s.ClusterCIDR,
		"service-cluster-ip-range":         s.ServiceCIDR,
		"root-ca-file":                     s.tls("server-ca.crt"),
		"tls-cert-file":                    s.tls("kube-controller-manager/kube-controller-manager.crt"),
		"tls-private-key-file":             s.tls("kube-controller-manager/kube-controller-manager.key"),
		"bind-address":                     "127.0.0.1",
		"secure-port":                      "10257",
		"use-service-account-credentials":  "true",
		"profiling":                        "false",
		"flex-volume-plugin-dir":           volumePlugins,
		"terminated-pod-gc-threshold":      "1000",
		"permit-port-sharing":              "true",
	}
	for signer, ca := range map[string]string{
		"kube-apiserver-client": "client-ca", "kubelet-client": "client-ca",
		"kubelet-serving": "server-ca", "legacy-unknown": "server-ca",
	} {
		args["cluster-signing-"+signer+"-cert-file"] = s.tls(ca + ".nochain.crt")
		args["cluster-signing-"+signer+"-key-file"] = s.tls(ca + ".key")
	}
	// RKE2 switches the controllers of cloud providers off here. Kubernetes 1.37 has none of them left in this
	// program, and refuses a controller's name that it does not know.
	return definition{
		name:     ControllerManager,
		args:     args,
		dirs:     s.certificateDirs(),
		requests: resources("200m", "256Mi"),
		probes:   httpProbes("HTTPS", 10257, "/healthz", "/healthz"),
	}
}

func (s Server) scheduler() definition {
	kubeconfig := s.cred("scheduler.kubeconfig")
	return definition{
		name: Scheduler,
		args: map[string]string{
			"kubeconfig":                kubeconfig,
			"authentication-kubeconfig": kubeconfig,
			"authorization-kubeconfig":  kubeconfig,
			"bind-address":              "127.0.0.1",
			"secure-port":               "10259",
			"tls-cert-file":             s.tls("kube-scheduler/kube-scheduler.crt"),
			"tls-private-key-file":      s.tls("kube-scheduler/kube-scheduler.key"),
			"profiling":                 "false",
			"permit-port-sharing":       "true",
		},
		requests: resources("100m", "128Mi"),
		probes:   httpProbes("HTTPS", 10259, "/livez", "/readyz"),
	}
}

func (s Server) cloudController() definition {
	kubeconfig := s.cred("cloud-controller.kubeconfig")
	return definition{
		name: CloudController,
		args: map[string]string{
			"cloud-provider":               "rke2",
			"cloud-config":                 s.CloudConfig,
			"controllers":                  "*,-route,-service",
			"allocate-node-cidrs":          "true",
			"cluster-cidr":                 s.ClusterCIDR,
			"configure-cloud-routes":       "false",
			"leader-elect-resource-name":   "rke2-cloud-controller-manager",
			"node-status-update-frequency": "1m0s",
			"kubeconfig":                   kubeconfig,
			"authentication-kubeconfig":    kubeconfig,
			"authorization-kubeconfig":     kubeconfig,
			"bind-address":                 "127.0.0.1",
			"profiling":                    "false",
		},
		dirs:     s.certificateDirs(),
		requests: resources("100m", "128Mi"),
		probes:   httpProbes("HTTPS", 10258, "/healthz", "/healthz"),
	}
}

func (s Server) kubeProxy() definition {
	live := httpProbes("HTTP", 10256, "/livez", "")
	live.startup = nil
	return definition{
		name: KubeProxy,
		args: map[string]string{
			// RKE2 says iptables. Keelson has no iptables program, and upstream's own successor is nftables.
			"proxy-mode":                        "nftables",
			"cluster-cidr":                      s.ClusterCIDR,
			"kubeconfig":                        path.Join(s.agent(), "kubeproxy.kubeconfig"),
			"healthz-bind-address":              "127.0.0.1",
			"hostname-override":                 s.NodeName,
			"conntrack-max-per-core":            "0",
			"conntrack-tcp-timeout-established": "0s",
			"conntrack-tcp-timeout-close-wait":  "0s",
		},
		privileged: true,
		requests:   resources("250m", "128Mi"),
		probes:     live,
	}
}

func set(args map[string]string, name, value string) {
	if value != "" {
		args[name] = value
	}
}
