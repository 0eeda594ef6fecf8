// Package backdoortest stands in for VMware's hypervisor in tests: it keeps the
// other end of the channel of package backdoor, with values of guestinfo, and
// fails the test where an instruction is not what open-vm-tools would send
// (lib/message/messageBackdoor.c).
package backdoortest

import (
	"encoding/binary"
	"strings"
	"testing"

	"keelson/init/metadata/backdoor"
)

// Host is a hypervisor. Values are keyed by the name after "info-get ".
type Host struct {
	T      testing.TB
	Values map[string]string

	NoCookies   bool // as old ones are
	Refuses     bool // opens no channel
	Checkpoints int  // how many steps of receiving are interrupted

	Asked  []string // requests in order
	Opened int      // channels that are open

	want           uint32 // bytes of the request that are to come
	request, reply []byte
}

const (
	id        = 5
	high, low = 0xdeadbeef, 0x1badcafe
	flood     = 1 << 20
)

// Do takes the place of backdoor.Do.
func (h *Host) Do(f func(backdoor.Port) error) error { return f(h.Port) }

// Port answers one instruction.
func (h *Host) Port(r *backdoor.Registers) {
	if r.AX != backdoor.Magic || r.DX&0xffff != backdoor.Number {
		h.T.Errorf("instruction with AX %#x and port %#x", r.AX, r.DX&0xffff)
	}
	switch r.CX & 0xffff {
	case backdoor.Version:
		r.AX, r.BX = 6, backdoor.Magic
		return
	case backdoor.Message:
	default:
		h.T.Errorf("command %d", r.CX&0xffff)
		return
	}
	step := r.CX >> 16
	if step != backdoor.Open {
		if r.DX>>16 != id || !h.NoCookies && (r.SI != high || r.DI != low) {
			h.T.Errorf("step %d of channel %d with cookies %#x %#x", step, r.DX>>16, r.SI, r.DI)
		}
	}
	status := h.step(step, r)
	r.CX = status<<16 | r.CX&0xffff
}

func (h *Host) step(step uint32, r *backdoor.Registers) (status uint32) {
	if h.Checkpoints > 0 && step == backdoor.ReceivePayload {
		h.Checkpoints--
		h.request, h.reply = nil, nil
		return backdoor.Checkpoint
	}
	switch step {
	case backdoor.Open:
		if h.Refuses || r.BX&^uint32(backdoor.Cookies) != backdoor.RPCI || h.NoCookies && r.BX&backdoor.Cookies != 0 {
			return 0
		}
		h.Opened++
		r.DX = id<<16 | r.DX&0xffff
		if !h.NoCookies {
			r.SI, r.DI = high, low
		}
	case backdoor.SendSize:
		if h.want = r.BX; h.want == 0 || h.want > flood {
			h.T.Errorf("a request of %d bytes", h.want)
		}
		h.request = nil
	case backdoor.SendPayload:
		h.request = binary.LittleEndian.AppendUint32(h.request, r.BX)
		if len(h.request) < int(h.want) {
			break
		}
		request := string(h.request[:h.want])
		h.Asked = append(h.Asked, request)
		h.reply = []byte("0 No value found")
		if value, ok := h.Values[strings.TrimPrefix(request, "info-get ")]; ok {
			h.reply = []byte("1 " + value)
		}
	case backdoor.ReceiveSize:
		r.DX, r.BX = backdoor.SendSize<<16|r.DX&0xffff, uint32(len(h.reply))
		return backdoor.Success | backdoor.Waiting
	case backdoor.ReceivePayload:
		var word [4]byte
		h.reply = h.reply[copy(word[:], h.reply):]
		r.DX, r.BX = backdoor.SendPayload<<16|r.DX&0xffff, binary.LittleEndian.Uint32(word[:])
	case backdoor.ReceiveStatus:
		if len(h.reply) > 0 {
			h.T.Errorf("%d bytes were left", len(h.reply))
		}
	case backdoor.Close:
		h.Opened--
	default:
		h.T.Errorf("step %d", step)
		return 0
	}
	return backdoor.Success
}
