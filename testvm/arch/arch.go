// Package arch holds the project to its import rules: who may use whom, and what PID 1 must never link.
//
// It is only a test; nothing imports it. Its input is the module's own source as the go command lists it.
package arch
