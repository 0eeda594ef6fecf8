package backdoor

import (
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// in reads the port that DX names and keeps what is then in the registers.
//
//go:noescape
func in(r *Registers)

// Do runs f on a thread that may read the port. Where nobody answers there, it
// is an error: where the processor forbids the instruction as well.
func Do(f func(Port) error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// A kernel in lockdown refuses this. VMware answers all the same, since it
	// looks before the processor does; elsewhere the instruction then faults.
	if unix.Iopl(3) == nil {
		defer unix.Iopl(0)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch v := recover().(type) {
		case nil:
		case runtime.Error:
			err = ErrAbsent
		default:
			panic(v)
		}
	}()
	return f(in)
}
