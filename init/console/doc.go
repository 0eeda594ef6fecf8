// Package console is what a person in front of the machine sees and types.
//
// Lines go to every console that the kernel uses (a screen and a serial port,
// say) through a queue of each, so that a console that nobody drains never
// holds up the boot. Keys answer with diagnostics; there is nothing to log in
// to. Package console never reads a file of the machine: what a key shows comes
// from the caller.
package console
