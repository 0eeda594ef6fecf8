package flannel

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/flannel-io/flannel/pkg/subnet"
)

// TestFlags: every flag, alone, over upstream's defaults.
func TestFlags(t *testing.T) {
	defaults := Options{
		KubeSubnetMgr: true, AnnotationPrefix: "flannel.alpha.coreos.com", NetConf: "/etc/kube-flannel/net-conf.json", SetNetworkUnavailable: true,
		SubnetFile: "/run/flannel/subnet.env", ForwardRules: true, HealthzIP: "0.0.0.0",
	}
	for _, c := range []struct {
		args   []string
		change func(*Options)
	}{
		{nil, func(*Options) {}},
		{[]string{"--kube-subnet-mgr"}, func(*Options) {}},
		{[]string{"--kube-api-url=https://10.0.0.1:6443"}, func(o *Options) { o.KubeAPIURL = "https://10.0.0.1:6443" }},
		{[]string{"--kubeconfig-file", "/k"}, func(o *Options) { o.Kubeconfig = "/k" }},
		{[]string{"--kube-annotation-prefix=x.example"}, func(o *Options) { o.AnnotationPrefix = "x.example" }},
		{[]string{"--net-config-path=/n"}, func(o *Options) { o.NetConf = "/n" }},
		{[]string{"--set-node-network-unavailable=false"}, func(o *Options) { o.SetNetworkUnavailable = false }},
		{[]string{"--iface=eth0", "--iface=10.0.0.1"}, func(o *Options) { o.Interfaces = list{"eth0", "10.0.0.1"} }},
		{[]string{"--iface-regex=^en", "--iface-regex=^eth"}, func(o *Options) { o.InterfaceRegexes = list{"^en", "^eth"} }},
		{[]string{"--iface-can-reach=10.0.0.9"}, func(o *Options) { o.InterfaceReach = "10.0.0.9" }},
		{[]string{"--public-ip=203.0.113.7"}, func(o *Options) { o.PublicIP = "203.0.113.7" }},
		{[]string{"--public-ipv6=fd00::7"}, func(o *Options) { o.PublicIPv6 = "fd00::7" }},
		{[]string{"--subnet-file=/s"}, func(o *Options) { o.SubnetFile = "/s" }},
		{[]string{"--ip-masq"}, func(o *Options) { o.MasqueradePods = true }},
		{[]string{"--ip-masq-fully-random-disable"}, func(o *Options) { o.MasqueradeNoFullyRandom = true }},
		{[]string{"--iptables-forward-rules=false"}, func(o *Options) { o.ForwardRules = false }},
		{[]string{"--healthz-ip=127.0.0.1"}, func(o *Options) { o.HealthzIP = "127.0.0.1" }},
		{[]string{"--healthz-port=1"}, func(o *Options) { o.HealthzPort = 1 }},
		{[]string{"--version"}, func(o *Options) { o.Version = true }},
	} {
		want := defaults
		c.change(&want)
		if got, err := ParseArguments(c.args, io.Discard); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, %v\nwant %+v", c.args, got, err, want)
		}
	}
}

// TestRefusedFlags: upstream's flags without a meaning here are named, and help is no failure of the reader.
func TestRefusedFlags(t *testing.T) {
	for _, name := range []string{"etcd-endpoints", "etcd-prefix", "etcd-keyfile", "etcd-username", "subnet-lease-renew-margin", "iptables-resync", "charge-pods"} {
		var out bytes.Buffer
		if _, err := ParseArguments([]string{"--" + name + "=x"}, &out); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(out.String(), "-subnet-file") {
			t.Errorf("%s: got %v, want it named and the known ones listed", name, err)
		}
	}
	if _, err := ParseArguments([]string{"--help"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("help: got %v", err)
	}
	for _, arg := range []string{"--ip-masq=perhaps", "--healthz-port=", "--iface"} {
		if _, err := ParseArguments([]string{arg}, io.Discard); err == nil {
			t.Errorf("%s: passed", arg)
		}
	}
}

// nodes is a subnet manager that knows what an administrator wrote on the Node. Anything else that is asked of it
// is a nil call.
type nodes struct {
	subnet.Manager
	v4, v6 string
}

func (n nodes) GetStoredPublicIP(context.Context) (string, string) { return n.v4, n.v6 }

// TestInterfaces needs no network but loopback.
func TestInterfaces(t *testing.T) {
	loopback, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skip("there is no interface lo")
	}
	for _, c := range []struct {
		name    string
		o       Options
		stored  nodes
		config  subnet.Config
		public  string
		problem string
	}{
		{"by address", Options{Interfaces: list{"127.0.0.1"}}, nodes{}, subnet.Config{EnableIPv4: true}, "127.0.0.1", ""},
		{"the first that fits", Options{Interfaces: list{"none0", "127.0.0.1"}}, nodes{}, subnet.Config{EnableIPv4: true}, "127.0.0.1", ""},
		{"another public address", Options{Interfaces: list{"127.0.0.1"}, PublicIP: "203.0.113.7"}, nodes{}, subnet.Config{EnableIPv4: true}, "203.0.113.7", ""},
		{"the Node's annotation beats the flag", Options{Interfaces: list{"127.0.0.1"}, PublicIP: "203.0.113.7"}, nodes{v4: "203.0.113.8"}, subnet.Config{EnableIPv4: true}, "203.0.113.8", ""},
		{"none fits", Options{Interfaces: list{"none0", "none1"}}, nodes{}, subnet.Config{EnableIPv4: true}, "", "find interface to other nodes: "},
		{"no family", Options{Interfaces: list{"lo"}}, nodes{}, subnet.Config{}, "", "read network configuration"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := externalInterface(t.Context(), c.o, c.stored, &c.config)
			if c.problem != "" {
				if err == nil || !strings.HasPrefix(err.Error(), c.problem) {
					t.Errorf("got %v, want %q", err, c.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Iface.Index != loopback.Index || got.ExtAddr.String() != c.public {
				t.Errorf("got %s with %v, want lo with %s", got.Iface.Name, got.ExtAddr, c.public)
			}
		})
	}
}

// TestHealthServes over a real socket, until it is told to stop.
func TestHealthServes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	h := &health{}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	stop, err := h.serve("127.0.0.1", port, cancel)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("got %v, %v", res, err)
	}
	res.Body.Close()
	stop()
	if _, err := client.Get("http://" + l.Addr().String() + "/healthz"); err == nil {
		t.Error("it answers after its end")
	}
	if ctx.Err() != nil {
		t.Errorf("an ordinary end was taken for a failure: %v", context.Cause(ctx))
	}
	stop, err = h.serve("127.0.0.1", 0, cancel)
	if err != nil {
		t.Errorf("port 0: %v", err)
	}
	stop()
}
