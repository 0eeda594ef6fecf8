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
