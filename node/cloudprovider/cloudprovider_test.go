package cloudprovider

import (
	"bytes"
	"context"
	"reflect"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cloudprovider "k8s.io/cloud-provider"
)

func node(annotations map[string]string) *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "cp-1", Annotations: annotations}}
}

func TestInstanceMetadata(t *testing.T) {
	cases := []struct {
		name        string
		annotations map[string]string
		want        []v1.NodeAddress
		wantErr     string
	}{
		{"not yet annotated", nil, nil, "rke2.io/internal-ip is not set yet"},
		{"only a host name", map[string]string{"rke2.io/hostname": "cp-1"}, nil, "rke2.io/internal-ip is not set yet"},
		{"annotated with nothing", map[string]string{"rke2.io/internal-ip": " , "}, nil, "read addresses of node cp-1: annotation rke2.io/internal-ip is not set yet"},
		{"only an outer address", map[string]string{"rke2.io/external-ip": "203.0.113.7"}, nil, "rke2.io/internal-ip is not set yet"},
		{"RKE2's order, not that of the annotations", map[string]string{"rke2.io/hostname": "cp-1", "rke2.io/external-dns": "c.d", "rke2.io/internal-ip": "10.0.2.15", "rke2.io/external-ip": "203.0.113.7"},
			[]v1.NodeAddress{{Type: "InternalIP", Address: "10.0.2.15"}, {Type: "ExternalIP", Address: "203.0.113.7"},
				{Type: "ExternalDNS", Address: "c.d"}, {Type: "Hostname", Address: "cp-1"}}, ""},
		{"blanks and empty parts", map[string]string{"rke2.io/internal-ip": ",10.0.2.15 ,, fd00::15,", "rke2.io/external-ip": ","},
			[]v1.NodeAddress{{Type: "InternalIP", Address: "10.0.2.15"}, {Type: "InternalIP", Address: "fd00::15"}}, ""},
		{"annotations of others", map[string]string{"rke2.io/internal-ip": "10.0.2.15", "k3s.io/external-ip": "203.0.113.7"},
			[]v1.NodeAddress{{Type: "InternalIP", Address: "10.0.2.15"}}, ""},
		{"usual", map[string]string{"rke2.io/internal-ip": "10.0.2.15", "rke2.io/hostname": "cp-1"},
			[]v1.NodeAddress{{Type: "InternalIP", Address: "10.0.2.15"}, {Type: "Hostname", Address: "cp-1"}}, ""},
		{"two families and an outer address",
			map[string]string{"rke2.io/internal-ip": "10.0.2.15, fd00::15", "rke2.io/external-ip": "203.0.113.7", "rke2.io/hostname": "cp-1"},
			[]v1.NodeAddress{{Type: "InternalIP", Address: "10.0.2.15"}, {Type: "InternalIP", Address: "fd00::15"},
				{Type: "ExternalIP", Address: "203.0.113.7"}, {Type: "Hostname", Address: "cp-1"}}, ""},
		{"names", map[string]string{"rke2.io/internal-ip": "10.0.2.15", "rke2.io/internal-dns": "a.b", "rke2.io/external-dns": "c.d"},
			[]v1.NodeAddress{{Type: "InternalIP", Address: "10.0.2.15"}, {Type: "InternalDNS", Address: "a.b"}, {Type: "ExternalDNS", Address: "c.d"}}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := Provider{}.InstanceMetadata(context.Background(), node(c.annotations))
			if c.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantErr) {
					t.Fatalf("got %v, want %q", err, c.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got.NodeAddresses, c.want) {
				t.Errorf("addresses: got %v, want %v", got.NodeAddresses, c.want)
			}
			if got.ProviderID != "rke2://cp-1" || got.InstanceType != "rke2" {
				t.Errorf("got %q, %q, want rke2://cp-1 and rke2", got.ProviderID, got.InstanceType)
			}
		})
	}
}

func TestProviderOffersOnlyInstances(t *testing.T) {
	var p cloudprovider.Interface = Provider{}
	if _, ok := p.InstancesV2(); !ok {
		t.Error("no instances")
	}
	_, balancer := p.LoadBalancer()
	_, routes := p.Routes()
	_, zones := p.Zones()
	_, old := p.Instances()
	if balancer || routes || zones || old {
		t.Errorf("got load balancer %v, routes %v, zones %v, old instances %v, want none", balancer, routes, zones, old)
	}
	if exists, err := (Provider{}).InstanceExists(context.Background(), node(nil)); err != nil || !exists {
		t.Errorf("exists: got %v, %v, want true: the controller deletes the Node otherwise", exists, err)
	}
	if down, err := (Provider{}).InstanceShutdown(context.Background(), node(nil)); err != nil || down {
		t.Errorf("shut down: got %v, %v, want false", down, err)
	}
	if !p.HasClusterID() || p.ProviderName() != "rke2" {
		t.Errorf("got %v, %q", p.HasClusterID(), p.ProviderName())
	}
}

// TestCommandTakesRKE2Arguments checks the flags that the static pod gives (RKE2's cloud-controller-manager).
func TestCommandTakesRKE2Arguments(t *testing.T) {
	command, err := Command()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	command.SetOut(&out)
	command.SetErr(&out)
	err = command.ParseFlags([]string{
		"--cloud-provider=rke2", "--cloud-config=/x/cloud-config.yaml", "--controllers=*,-route,-service",
		"--allocate-node-cidrs=true", "--cluster-cidr=10.42.0.0/16", "--configure-cloud-routes=false",
		"--leader-elect-resource-name=rke2-cloud-controller-manager", "--node-status-update-frequency=1m0s",
		"--kubeconfig=/x", "--authentication-kubeconfig=/x", "--authorization-kubeconfig=/x",
		"--bind-address=127.0.0.1", "--profiling=false",
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestCommandRefuses what only another program's flags would be.
func TestCommandRefuses(t *testing.T) {
	for _, flag := range []string{"--no-such-flag", "--node-status-update-frequency=soon", "--allocate-node-cidrs=perhaps"} {
		command, err := Command()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.ParseFlags([]string{flag}); err == nil {
			t.Errorf("%s: passed", flag)
		}
	}
}
