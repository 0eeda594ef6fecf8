package scenario

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"keelson/testvm/cidata"
	"keelson/testvm/lan"
	"keelson/testvm/machine"
	"keelson/testvm/qemu"
)

// lanToken is the token of the clusters that several machines form.
const lanToken = "8f4c0f3e1d2b4a59b7c6d5e4f3a2b1c0"

// machines are virtual machines that see each other.
type machines struct {
	t   *testing.T
	net *lan.Switch
	all []*machine.Machine

	seen atomic.Pointer[func(frame []byte)] // hears every frame on the LAN
}

// lanAddress is the n-th machine's, n from 1.
func lanAddress(n int) string { return fmt.Sprintf("10.77.0.%d", n) }

// lanAddress6 is its address of IPv6.
func lanAddress6(n int) string { return fmt.Sprintf("fd00:77::%d", n) }

// newMachines makes machines that are off. The first begins a cluster; the others join it in the roles given.
func newMachines(t *testing.T, roles ...string) *machines {
	t.Helper()
	return newMachinesWith(t, 0, nil, roles...)
}

// newMachinesWith gives all of them that many processors (0: as others have) and more settings.
func newMachinesWith(t *testing.T, cpus int, more map[string]any, roles ...string) *machines {
	t.Helper()
	dir, err := os.MkdirTemp("", "lan")
	if err != nil {
		t.Fatal(err)
	}
	ms := &machines{t: t}
	net, err := lan.New(lan.Config{Dir: dir, Seen: func(_ string, frame []byte) {
		if seen := ms.seen.Load(); seen != nil {
			(*seen)(frame)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	ms.net = net
	for i, role := range roles {
		n := i + 1
		port, err := net.Plug(fmt.Sprint(n))
		if err != nil {
			t.Fatal(err)
		}
		mac := lan.MAC(byte(n))
		settings := maps.Clone(more)
		if settings == nil {
			settings = map[string]any{}
		}
		settings["role"], settings["token"], settings["node-ip"] = role, lanToken, lanAddress(n)
		if pods, _ := settings["cluster-cidr"].(string); strings.Contains(pods, ",") {
			settings["node-ip"] = lanAddress(n) + "," + lanAddress6(n)
		}
		if n > 1 {
			settings["server"] = "https://" + lanAddress(1) + ":9345"
		}
		doc, err := cidata.CloudConfig{Hostname: fmt.Sprintf("keelson-%d", n), RKE2: settings, WriteFiles: mirror()}.Render()
		if err != nil {
			t.Fatal(err)
		}
		network := fmt.Sprintf("version: 2\nethernets:\n  outside:\n    match: {macaddress: \"52:54:00:12:34:56\"}\n    dhcp4: true\n"+
			"  lan:\n    match: {macaddress: %q}\n    addresses: [%s/24, %q]\n", mac, lanAddress(n), lanAddress6(n)+"/64")
		t.Run(fmt.Sprintf("make machine %d", n), func(t *testing.T) {
			ms.all = append(ms.all, makeMachine(t, qemu.Direct, func(c *machine.Config) {
				c.CPUs, c.LAN, c.MAC, c.Seed = cpus, port, mac, cidata.Volume{UserData: doc, NetworkConfig: []byte(network)}
			}))
		})
	}
	if len(ms.all) != len(roles) {
		t.FailNow()
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- net.Run(ctx) }()
	t.Cleanup(func() {
		for _, m := range ms.all {
			report(t, m)
			if err := m.Remove(); err != nil {
				t.Log(err)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return ms
}
