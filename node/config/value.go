package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The functions of this file judge one value of a key. Their errors follow the key's name in a Problem.

func absolute(s string) error {
	if !filepath.IsAbs(s) || filepath.Clean(s) != s {
		return fmt.Errorf("is %q; write a clean absolute path", s)
	}
	return nil
}

// oneLine guards values that go into headers, CSV rows or command lines. It does not repeat the value, which may be
// a secret.
func oneLine(s string) error {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return errors.New("holds a line break or control character; write it on one line")
	}
	return nil
}

// isDNSName tells whether s is an RFC 1123 subdomain, which node names, domains and SANs must be.
func isDNSName(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) > 63 || !matches(`[a-z0-9]([a-z0-9-]*[a-z0-9])?`, label) {
			return false
		}
	}
	return true
}

func dnsName(s string) error {
	if !isDNSName(s) {
		return fmt.Errorf("is %q; write a DNS name of lower-case letters, digits, dashes and dots", s)
	}
	return nil
}

func san(s string) error {
	if _, err := netip.ParseAddr(s); err == nil || isDNSName(strings.TrimPrefix(strings.ToLower(s), "*.")) {
		return nil
	}
	return fmt.Errorf("%q is neither an IP address nor a DNS name", s)
}

// serverURL holds `server` to what a supervisor's address is: nothing behind the port is ever asked for.
func serverURL(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("is %q; write https://host:9345, with the port", s)
	}
	return nil
}

func egress(s string) error {
	switch s {
	case EgressAgent, EgressDisabled:
		return nil
	case "cluster", "pod":
		return fmt.Errorf("%s is not supported: write agent (kube-apiserver reaches kubelets through their tunnels) or disabled", s)
	}
	return fmt.Errorf("is %q; write agent or disabled", s)
}

// cni words the plug-ins of RKE2 that are not here apart from misspelt ones.
func cni(s string) error {
	switch s {
	case CNIFlannel, CNINone:
		return nil
	case "canal", "calico", "cilium", "multus":
		return fmt.Errorf("%s is not supported: only flannel is in the image; write flannel, or none and bring your own", s)
	}
	return fmt.Errorf("is %q; write flannel or none", s)
}

func flannelBackend(s string) error {
	switch s {
	case FlannelVXLAN, FlannelWireGuard, FlannelHostGW:
		return nil
	case "none":
		return errors.New("none is written cni: none here; remove this key and write that")
	case "wireguard":
		return errors.New("is wireguard; write wireguard-native")
	}
	return fmt.Errorf("is %q; write vxlan, wireguard-native or host-gw", s)
}

func provider(s string) error {
	if s != "aescbc" && s != "secretbox" {
		return fmt.Errorf("is %q; write aescbc or secretbox", s)
	}
	return nil
}

func addon(s string) error {
	if !matches(`[A-Za-z0-9][A-Za-z0-9._-]*`, s) {
		return fmt.Errorf("%q is not the name of an add-on; write one such as rke2-coredns", s)
	}
	return nil
}

// Label and taint grammar: k8s.io/apimachinery, pkg/util/validation (qualified names and label values).
const (
	qualifiedName = `([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?`
	labelValue    = `([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?`
)

func label(s string) error {
	if !matches(qualifiedName+`=`+labelValue, s) {
		return fmt.Errorf("%q is not a label; write key=value", s)
	}
	return nil
}

func taint(s string) error {
	if !matches(qualifiedName+`(=`+labelValue+`)?:(NoSchedule|PreferNoSchedule|NoExecute)`, s) {
		return fmt.Errorf("%q is not a taint; write key=value:effect with NoSchedule, PreferNoSchedule or NoExecute", s)
	}
	return nil
}

// arg reads a component's flag. "name+=x" and "name-=x" are RKE2's way to add to a default.
func arg(s string) error {
	if strings.HasPrefix(s, "-") {
		return fmt.Errorf("%q begins with a dash; write name=value without it", s)
	}
	if !matches(`[a-zA-Z0-9][a-zA-Z0-9._-]*([+-]?=(?s:.*))?`, s) {
		return fmt.Errorf("%q is not a flag; write name=value", s)
	}
	return nil
}

func variable(s string) error {
	if !matches(`[A-Za-z_][A-Za-z0-9_.-]*=(?s:.*)`, s) {
		return fmt.Errorf("%q is not a variable; write NAME=value", s)
	}
	return nil
}

// mountTypes are the host path types of the Kubernetes API that a mount may name (core/v1 HostPathType).
func mountTypes() []string {
	return []string{"DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"}
}

func mount(s string) error {
	parts := strings.Split(s, ":")
	ok := len(parts) >= 2 && len(parts) <= 4 && filepath.IsAbs(parts[0]) && filepath.IsAbs(parts[1]) &&
		(len(parts) < 3 || parts[2] == "ro" || parts[2] == "rw") &&
		(len(parts) < 4 || slices.Contains(mountTypes(), parts[3]))
	if !ok {
		return fmt.Errorf("%q is not a mount; write /source:/destination, then :ro or :rw, then :Directory or another host path type", s)
	}
	return nil
}

const components = `(kube-apiserver|kube-controller-manager|kube-scheduler|kube-proxy|cloud-controller-manager|etcd)`

// resource reads "<component>-<cpu|memory>=<quantity>"; the quantity's grammar is k8s.io/apimachinery's.
func resource(s string) error {
	if !matches(components+`-(cpu|memory)=[0-9]+(\.[0-9]*)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?`, s) {
		return fmt.Errorf("%q is not a resource setting; write one such as kube-apiserver-cpu=500m or etcd-memory=1Gi", s)
	}
	return nil
}

func probe(s string) error {
	if !matches(components+`-(startup|liveness|readiness)-(initial-delay-seconds|timeout-seconds|failure-threshold|period-seconds)=[0-9]+`, s) {
		return fmt.Errorf("%q is not a probe setting; write one such as etcd-startup-failure-threshold=30", s)
	}
	return nil
}

func bucketLookup(s string) error {
	if s != "auto" && s != "dns" && s != "path" {
		return fmt.Errorf("is %q; write auto, dns or path", s)
	}
	return nil
}

func duration(s string) error {
	if d, err := time.ParseDuration(s); err != nil || d <= 0 {
		return fmt.Errorf("is %q; write a duration such as 5m or 30s", s)
	}
	return nil
}

// matches tells whether pattern fits the whole of s.
func matches(pattern, s string) bool {
	return regexp.MustCompile(`^(` + pattern + `)$`).MatchString(s)
}
