// Package service starts programs, takes the exit status of every child, keeps
// services alive and their output in bounded files.
//
// A Reaper owns wait4(2) for the whole process: one goroutine takes every
// status, those of children that PID 1 inherits as well, and hands it to
// whoever started the child. A Service is a program that must run: it is
// started in a cgroup of its own, started again with growing pauses when it
// ends, and stopped with SIGTERM. Only this package starts processes in PID 1,
// and os/exec must not be used beside it. What a service does, and with which
// settings, is the business of the caller.
package service
