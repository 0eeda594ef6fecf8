package agent

import (
	"strings"
	"testing"
)

func TestCertificatesAreTold(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, _ := m.start(t, c, nil)
	if err := steps(t, within(t), a, append(joining(), "node events")...); err != nil {
		t.Fatal(err)
	}
	var got string
	await(t, within(t), "an event", func() bool {
		c.set(func() { got = strings.Join(c.events, "\n") })
		return got != ""
	})
	for _, want := range []string{"system:node:w-1: ", `"kind":"Node"`, `"reason":"CertificateExpirationOK"`, `"type":"Normal"`, `"component":"rke2-cert-monitor"`} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s, want %s in it", got, want)
		}
	}
}

func TestDiskIsWatched(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, _ := m.start(t, c, nil)
	if err := steps(t, within(t), a, append(joining(), "disk space")...); err != nil {
		t.Fatal(err)
	}
	await(t, within(t), "the Node's condition", func() (told bool) {
		c.set(func() { told = strings.Contains(string(c.patch), `"DiskSpaceLow"`) && c.patcher == "system:node:w-1" })
		return told
	})
	if d := a.status(t.Context()).Disk; d == nil || d.Total == 0 {
		t.Errorf("got %+v", d)
	}
}

func TestNodeIsReaddressed(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, _ := m.start(t, c, nil)
	c.set(func() { c.address = "10.0.2.99" })
	if err := steps(t, within(t), a, append(joining(), "node address")...); err != nil {
		t.Fatal(err)
	}
	c.set(func() {
		if !strings.Contains(string(c.patch), `"10.0.2.15"`) || strings.Contains(string(c.patch), "10.0.2.99") || c.patcher != "system:node:w-1" {
			t.Errorf("%s wrote %s", c.patcher, c.patch)
		}
	})
	if !strings.Contains(m.console.String(), "the address of this machine was 10.0.2.99 and is 10.0.2.15\n") {
		t.Errorf("the console says %s", m.console)
	}
}
