package backdoor

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Registers of the processor, before and after an instruction. The order is
// that of the assembler file.
type Registers struct{ AX, BX, CX, DX, SI, DI uint32 }

// Port is one instruction.
type Port func(*Registers)

// ErrAbsent says that no hypervisor of VMware answers.
var ErrAbsent = errors.New("the hypervisor does not answer")

// ErrRefused says that it answers and wants no channel.
var ErrRefused = errors.New("the hypervisor opens no channel")

// Numbers of the protocol.
const (
	Magic   = 0x564d5868 // "VMXh"
	Number  = 0x5658     // the port
	Version = 10         // command: version of the interface, and Magic in BX
	Message = 30         // command: the channel
	RPCI    = 0x49435052 // what the channel is for, "RPCI"
	Cookies = 0x80000000 // flag beside RPCI: answer with cookies, which say whose the channel is
)

// Steps of the channel, in the upper half of CX.
const (
	Open = iota
	SendSize
	SendPayload
	ReceiveSize
	ReceivePayload
	ReceiveStatus
	Close
)

// Answers, in the upper half of CX.
const (
	Success    = 0x0001
	Waiting    = 0x0002 // there is something to receive
	Checkpoint = 0x0010 // the machine was saved or moved in between: once more
)

// maxReply bounds a value. VMware takes 1 MiB for all of guestinfo.
const maxReply = 8 << 20

// tries is how often one question is begun anew after a checkpoint.
const tries = 4

// Channel is open until Close.
type Channel struct {
	port      Port
	id        uint32
	high, low uint32 // cookies
}

// New opens a channel where somebody answers.
func New(port Port) (*Channel, error) {
	r := Registers{AX: Magic, BX: ^uint32(Magic), CX: Version, DX: Number}
	if port(&r); r.BX != Magic || r.AX == 0xffffffff {
		return nil, ErrAbsent
	}
	c := &Channel{port: port}
	return c, c.open()
}

func (c *Channel) open() error {
	for _, flags := range []uint32{Cookies, 0} { // old ones know no cookies
		r := Registers{AX: Magic, BX: RPCI | flags, CX: Open<<16 | Message, DX: Number}
		if c.port(&r); r.CX>>16&Success != 0 {
			c.id, c.high, c.low = r.DX>>16, r.SI, r.DI
			return nil
		}
	}
	return ErrRefused
}

// step makes one instruction, and gives the registers after it.
func (c *Channel) step(kind, value uint32) (Registers, bool) {
	r := Registers{AX: Magic, BX: value, CX: kind<<16 | Message, DX: c.id<<16 | Number, SI: c.high, DI: c.low}
	c.port(&r)
	return r, r.CX>>16&Success != 0
}

// Close ends the channel.
func (c *Channel) Close() error {
	if _, ok := c.step(Close, 0); !ok {
		return errors.New("close the channel: refused")
	}
	return nil
}

// Ask sends a request and returns the answer; false where the hypervisor says
// that it has none, with its words.
func (c *Channel) Ask(request string) (answer []byte, ok bool, err error) {
	for range tries {
		var again bool
		if answer, again, err = c.exchange(request); !again {
			break
		}
		// Nobody knows how much of it the host has seen.
		_ = c.Close()
		if err := c.open(); err != nil {
			return nil, false, err
		}
	}
	if err != nil {
		return nil, false, err
	}
	if len(answer) < 2 || answer[1] != ' ' || answer[0] != '0' && answer[0] != '1' {
		return nil, false, fmt.Errorf("answer %.20q begins with neither 0 nor 1", answer)
	}
	return answer[2:], answer[0] == '1', nil
}

// exchange is one try. again says that a checkpoint came in between.
func (c *Channel) exchange(request string) (answer []byte, again bool, err error) {
	if r, ok := c.step(SendSize, uint32(len(request))); !ok {
		return nil, interrupted(r), errors.New("send: refused")
	}
	for rest := []byte(request); len(rest) > 0; rest = rest[min(4, len(rest)):] {
		var word [4]byte
		copy(word[:], rest)
		if r, ok := c.step(SendPayload, binary.LittleEndian.Uint32(word[:])); !ok {
			return nil, interrupted(r), errors.New("send: broken off")
		}
	}
	r, ok := c.step(ReceiveSize, 0)
	switch {
	case !ok:
		return nil, interrupted(r), errors.New("receive: refused")
	case r.CX>>16&Waiting == 0:
		return nil, false, errors.New("receive: there is no answer")
	case r.DX>>16 != SendSize:
		return nil, false, fmt.Errorf("receive: got step %d in place of a size", r.DX>>16)
	case r.BX > maxReply:
		return nil, false, fmt.Errorf("receive: %d bytes are more than the %d that are read", r.BX, maxReply)
	}
	size := int(r.BX)
	answer = make([]byte, 0, size+3)
	for len(answer) < size {
		r, ok := c.step(ReceivePayload, Success)
		if !ok {
			return nil, interrupted(r), errors.New("receive: broken off")
		}
		if r.DX>>16 != SendPayload {
			return nil, false, fmt.Errorf("receive: got step %d in place of the answer", r.DX>>16)
		}
		answer = binary.LittleEndian.AppendUint32(answer, r.BX)
	}
	if r, ok := c.step(ReceiveStatus, Success); !ok {
		return nil, interrupted(r), errors.New("receive: the end is refused")
	}
	return answer[:size], false, nil
}

func interrupted(r Registers) bool { return r.CX>>16&Checkpoint != 0 }
