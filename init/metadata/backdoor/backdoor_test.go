package backdoor_test

import (
	"errors"
	"strings"
	"testing"

	"keelson/init/metadata/backdoor"
	"keelson/init/metadata/backdoor/backdoortest"
)

func TestAsk(t *testing.T) {
	values := map[string]string{"guestinfo.large": strings.Repeat("0123456789", 20_000)}
	for n := range 9 { // every remainder of a word
		values["guestinfo."+strings.Repeat("k", n)] = strings.Repeat("v", n)
	}
	for name, host := range map[string]*backdoortest.Host{
		"cookies": {}, "old": {NoCookies: true}, "moved meanwhile": {Checkpoints: 2},
	} {
		t.Run(name, func(t *testing.T) {
			host.T, host.Values = t, values
			c, err := backdoor.New(host.Port)
			if err != nil {
				t.Fatal(err)
			}
			for key, want := range values {
				if got, ok, err := c.Ask("info-get " + key); err != nil || !ok || string(got) != want {
					t.Errorf("%s: got %d bytes %v %v, want %d", key, len(got), ok, err, len(want))
				}
			}
			if got, ok, err := c.Ask("info-get guestinfo.nothing"); err != nil || ok || string(got) != "No value found" {
				t.Errorf("got %q %v %v, want none", got, ok, err)
			}
			if err := c.Close(); err != nil || host.Opened != 0 {
				t.Errorf("got %v, %d channels open", err, host.Opened)
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	// A bus without the port answers with ones; one that leaves the registers
	// as they are is none either.
	for name, port := range map[string]backdoor.Port{
		"ones": func(r *backdoor.Registers) { r.AX = 0xffffffff }, "nothing": func(*backdoor.Registers) {},
	} {
		if _, err := backdoor.New(port); !errors.Is(err, backdoor.ErrAbsent) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := backdoor.New((&backdoortest.Host{T: t, Refuses: true}).Port); !errors.Is(err, backdoor.ErrRefused) {
		t.Errorf("got %v, want the refusal", err)
	}
}

// A host that answers with something else ends the question with an error.
func TestBrokenHost(t *testing.T) {
	good := func() *backdoortest.Host {
		return &backdoortest.Host{T: t, Values: map[string]string{"guestinfo.a": "value"}}
	}
	for want, c := range map[string]struct {
		step  uint32
		after func(*backdoor.Registers)
	}{
		"send: refused":                  {backdoor.SendSize, func(r *backdoor.Registers) { r.CX &= 0xffff }},
		"send: broken off":               {backdoor.SendPayload, func(r *backdoor.Registers) { r.CX &= 0xffff }},
		"receive: refused":               {backdoor.ReceiveSize, func(r *backdoor.Registers) { r.CX &= 0xffff }},
		"there is no answer":             {backdoor.ReceiveSize, func(r *backdoor.Registers) { r.CX &^= backdoor.Waiting << 16 }},
		"got step 3 in place of a size":  {backdoor.ReceiveSize, func(r *backdoor.Registers) { r.DX = 3 << 16 }},
		"more than the":                  {backdoor.ReceiveSize, func(r *backdoor.Registers) { r.BX = 1 << 31 }},
		"receive: broken off":            {backdoor.ReceivePayload, func(r *backdoor.Registers) { r.CX &= 0xffff }},
		"got step 0 in place of the ans": {backdoor.ReceivePayload, func(r *backdoor.Registers) { r.DX &= 0xffff }},
		"begins with neither 0 nor 1":    {backdoor.ReceivePayload, func(r *backdoor.Registers) { r.BX = 0 }},
		"the end is refused":             {backdoor.ReceiveStatus, func(r *backdoor.Registers) { r.CX &= 0xffff }},
		"receive: broken off ":           {backdoor.ReceivePayload, func(r *backdoor.Registers) { r.CX = backdoor.Checkpoint << 16 }},
		"close the channel: refused":     {backdoor.Close, func(r *backdoor.Registers) { r.CX &= 0xffff }},
	} {
		host := good()
		channel, err := backdoor.New(func(r *backdoor.Registers) {
			step := r.CX >> 16
			if host.Port(r); step == c.step && r.CX&0xffff == backdoor.Message {
				c.after(r)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = channel.Ask("info-get guestinfo.a")
		if err == nil {
			err = channel.Close()
		}
		if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// The instruction itself, on whatever machine the test runs: it is answered, or
// it is an error. It is never the end of the process.
func TestInstruction(t *testing.T) {
	err := backdoor.Do(func(p backdoor.Port) error {
		c, err := backdoor.New(p)
		if err != nil {
			return err
		}
		return c.Close()
	})
	if err != nil && !errors.Is(err, backdoor.ErrAbsent) && !errors.Is(err, backdoor.ErrRefused) {
		t.Errorf("got %v", err)
	}
	t.Log(err)
	if err := backdoor.Do(func(backdoor.Port) error { return errors.ErrUnsupported }); !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, backdoor.ErrAbsent) {
		t.Errorf("got %v, want what the function says", err)
	}
}

// A hypervisor may say anything; what it says is bounded.
func FuzzHost(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, data []byte) {
		at := 0
		next := func() uint32 {
			if len(data) == 0 {
				return 0
			}
			at++
			return uint32(data[at%len(data)])
		}
		c, err := backdoor.New(func(r *backdoor.Registers) {
			if r.CX&0xffff == backdoor.Version {
				r.BX = backdoor.Magic
				return
			}
			r.BX, r.CX, r.DX = next(), next()<<16, next()<<16
		})
		if err == nil {
			answer, _, _ := c.Ask("info-get guestinfo.a")
			if len(answer) > 256 {
				t.Errorf("got %d bytes", len(answer))
			}
		}
	})
}
