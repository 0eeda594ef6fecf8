package scenario

import (
	"testing"
	"time"

	"keelson/testvm/cidata"
	"keelson/testvm/console"
	"keelson/testvm/machine"
	"keelson/testvm/qemu"
)

// mistake is a document and what the console must say of it: where, and what.
type mistake struct {
	name, document string
	want           string
}

const where = `keelson: user-data: cidata volume /dev/vdb: user-data: `

func mistakes() []mistake {
	return []mistake{
		{"broken YAML", "#cloud-config\nrke2:\n  role: server\n  tls-san: [a, b\n", where + `line [345]: .+`},
		{"unknown key", "#cloud-config\nrke2:\n  role: server\n  tls-sans: [a.example]\n", where + `line 4: rke2\.tls-sans: .+`},
		{"wrong type", "#cloud-config\nrke2:\n  role: server\n  tls-san: {name: a.example}\n", where + `line 4: rke2\.tls-san: .+`},
	}
}

// Bad user-data: the console says what and where, and the machine waits; a
// corrected document boots, put in while it waits or before the next boot.
func TestScenario5BadUserData(t *testing.T) {
	needVM(t)
	t.Run("corrected while it waits", func(t *testing.T) {
		all := mistakes()
		m := seeded(t, all[0].document)
		start(t, m)
		mark := m.Mark()
		for i, bad := range all {
			if i > 0 {
				mark = m.Console().Mark()
				correct(t, m, bad.document)
			}
			says(t, m, mark, bad.want)
			says(t, m, mark, `keelson: waiting for corrected user-data`)
			t.Logf("%s: as it should be", bad.name)
		}
		mark = m.Console().Mark()
		correct(t, m, string(userData(t)))
		says(t, m, mark, console.BootComplete().String())
	})
	// A shell script is a format that cannot be honoured, not a mistake in one
	// that can: it is named.
	t.Run("corrected before the next boot", func(t *testing.T) {
		m := seeded(t, "#!/bin/sh\necho hello\n")
		start(t, m)
		says(t, m, m.Mark(), where+`.*script.*`)
		says(t, m, m.Mark(), console.BootComplete().String()+`|keelson: waiting for corrected user-data`)
		if err := m.PowerCut(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		if err := m.Reseed(cidata.Volume{UserData: userData(t)}); err != nil {
			t.Fatal(err)
		}
		start(t, m)
		if _, err := m.Booted(within(t, bootLimit)); err != nil {
			t.Fatal(err)
		}
	})
}

// seeded is a machine with that user-data. The direct start saves the
// firmware's time, which is not what this is about.
func seeded(t *testing.T, document string) *machine.Machine {
	t.Helper()
	return newMachine(t, qemu.Direct, func(c *machine.Config) {
		c.Seed, c.SeedFormat = cidata.Volume{UserData: []byte(document)}, cidata.ISO
	})
}

// correct changes the seed of a machine that waits.
func correct(t *testing.T, m *machine.Machine, document string) {
	t.Helper()
	if err := m.Reseed(cidata.Volume{UserData: []byte(document)}); err != nil {
		t.Fatal(err)
	}
	if err := m.Announce(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
}
