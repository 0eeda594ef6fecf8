// Package https holds the two ends of an https source together: the side of
// PID 1 (init/metadata, init/tlschild) and the program that it starts
// (node/tlspipe), which may not import each other. It has tests alone.
package https
