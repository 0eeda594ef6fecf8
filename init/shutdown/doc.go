// Package shutdown ends the machine: in order, within one deadline, and always
// in what was asked for.
//
// Wait gathers the requests: the power button, Ctrl-Alt-Del, and signals to PID
// 1. Run stops the services, asks every other process to end (etcd among them,
// which gets its time), kills what stays, closes the state and powers off or
// reboots. Should any of that hang, a timer that depends on nothing does the
// last step at the deadline.
package shutdown
