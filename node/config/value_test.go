package config

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestValues holds, for each grammar, values that RKE2's users write and values that come close.
func TestValues(t *testing.T) {
	for _, c := range []struct {
		name      string
		check     func(string) error
		good, bad []string
	}{
		{"absolute", absolute, []string{"/a", "/var/lib/rancher/rke2"}, []string{"a", "./a", "/a/", "/a/../b", "/a//b"}},
		{"oneLine", oneLine, []string{"a b", "pässwört", "K10::x:y"}, []string{"a\nb", "a\x00", "a\x7f", "\t"}},
		{"dnsName", dnsName, []string{"a", "node-1", "cluster.local", strings.Repeat("a", 63)}, []string{"A", "a_b", "-a", "a-", "a..b", ".a", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a"}},
		{"san", san, []string{"10.0.0.1", "fd00::1", "Api.Example", "*.example"}, []string{"a b", "10.0.0.1/8", "https://a", "*", "a.*.b"}},
		{"cni", cni, []string{"flannel", "none"}, []string{"canal", "calico", "cilium", "multus", "Flannel"}},
		{"provider", provider, []string{"aescbc", "secretbox"}, []string{"aesgcm", "kms"}},
		{"addon", addon, []string{"rke2-coredns", "my_chart.v2"}, []string{"-a", "a/b", "a b"}},
		{"label", label, []string{"a=b", "a=", "example.com/a.b_c=D-e.f", "node-role.kubernetes.io/x=true"}, []string{"a", "=b", "a=b c", "a=b=c", "/a=b", "a=-b", "Example.com/a=b", "a=" + strings.Repeat("x", 64)}},
		{"taint", taint, []string{"a=b:NoSchedule", "a:NoExecute", "x.y/a=:PreferNoSchedule"}, []string{"a=b", "a=b:noschedule", ":NoSchedule", "a=b:NoSchedule:x"}},
		{"arg", arg, []string{"v=2", "feature-gates=A=true,B=false", "a+=b", "a-=b", "anonymous-auth", "x=line\nline", "eviction-hard=imagefs.available<5%"}, []string{"--v=2", "-v", "=a", "a b=c", "+=a"}},
		{"variable", variable, []string{"A=", "HTTP_PROXY=http://x:1/?a=b", "_a.b-c=1"}, []string{"A", "=a", "1A=b", "A B=c"}},
		{"mount", mount, []string{"/a:/b", "/a:/b:ro", "/a:/b:rw:FileOrCreate"}, []string{"/a", "/a:b", "a:/b", "/a:/b:x", "/a:/b:ro:Folder", "/a:/b:ro:File:x"}},
		{"resource", resource, []string{"kube-apiserver-cpu=500m", "etcd-memory=1.5Gi", "kube-proxy-cpu=1", "cloud-controller-manager-memory=1e3"}, []string{"kube-apiserver=1", "kube-apiserver-disk=1", "etcd-memory=1GB", "etcd-memory=-1", "kubelet-cpu=1"}},
		{"probe", probe, []string{"etcd-startup-failure-threshold=30", "kube-apiserver-liveness-period-seconds=0"}, []string{"etcd-startup=30", "etcd-boot-failure-threshold=1", "etcd-startup-failure-threshold=", "etcd-startup-failure-threshold=-1"}},
	} {
		for _, s := range c.good {
			if err := c.check(s); err != nil {
				t.Errorf("%s(%q): %v", c.name, s, err)
			}
		}
		for _, s := range c.bad {
			if err := c.check(s); err == nil {
				t.Errorf("%s(%q): passed", c.name, s)
			}
		}
	}
}

// TestEveryHonouredKeySetsItsField writes each key alone and looks whether exactly its field moved off the default.
func TestEveryHonouredKeySetsItsField(t *testing.T) {
	sample := map[string]string{
		"etcd-snapshot-retention": "9", "etcd-s3-retention": "9", "etcd-s3-timeout": "9m", "etcd-s3-bucket-lookup-type": "dns", "advertise-address": "192.0.2.7", "server": "https://cp-1:9345", "server-alternatives": "https://cp-2:9345", "egress-selector-mode": "disabled", "tls-san": "x.example", "cluster-cidr": "10.9.0.0/16", "service-cidr": "10.8.0.0/16",
		"service-node-port-range": "1000-2000", "cluster-dns": "10.8.0.9", "cni": "none", "flannel-backend": "host-gw", "write-kubeconfig-mode": "0640", "node-ip": "192.0.2.7",
		"node-external-ip": "192.0.2.8", "node-label": "a=b", "node-taint": "a=b:NoExecute", "control-plane-resource-requests": "etcd-cpu=1",
		"control-plane-resource-limits": "etcd-cpu=1", "control-plane-probe-configuration": "etcd-startup-period-seconds=9", "secrets-encryption-provider": "secretbox",
	}
	for _, k := range Keys() {
		if k.Status != Honoured {
			continue
		}
		value, ok := sample[k.Name]
		field := k.bind(&Config{})
		switch {
		case ok:
		case strings.HasSuffix(k.Name, "-extra-env"):
			value = "A=b"
		case strings.HasSuffix(k.Name, "-extra-mount"):
			value = "/a:/b"
		case strings.HasSuffix(k.Name, "-arg"):
			value = "v=1"
		case fmt.Sprintf("%T", field) == "*bool":
			value = "true"
		case strings.HasSuffix(k.Name, "-file"), k.Name == "data-dir", k.Name == "etcd-snapshot-dir", k.Name == "etcd-s3-endpoint-ca", k.Name == "write-kubeconfig", k.Name == "private-registry", k.Name == "resolv-conf":
			value = "/x/y"
		default:
			value = "plain"
		}
		es, problems := parse("f", []byte(k.Name+": "+value+"\n"))
		c, defaults := Default(), Default()
		if problems = append(problems, decode(&c, es)...); len(problems) > 0 {
			t.Errorf("%s: %s: %v", k.Name, value, problems)
			continue
		}
		for _, other := range Keys() {
			if other.Status != Honoured {
				continue
			}
			moved := show(other.bind(&c)) != show(other.bind(&defaults))
			if moved != (other.Name == k.Name) {
				t.Errorf("%s: field of %s moved: %v", k.Name, other.Name, moved)
			}
		}
	}
}

// show prints what a field holds, secrets included.
func show(field any) string {
	switch f := field.(type) {
	case *Secret:
		return f.Reveal()
	case *string:
		return *f
	case *bool:
		return fmt.Sprint(*f)
	case *int:
		return fmt.Sprint(*f)
	case *netip.Addr:
		return f.String()
	default:
		return fmt.Sprintf("%v", f)
	}
}
