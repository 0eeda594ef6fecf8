// Package metadata asks the metadata services of clouds.
//
// Client is a small HTTP/1.1 client for them: the services speak plain HTTP on
// addresses that are local to the machine, and net/http with its TLS would make
// PID 1 half as large again (3.0 MB more than 5.9 MB; 1.0 MB more in the
// initramfs). Where an address that somebody named is https, it speaks through
// a connection that a child process makes (package tlschild). It keeps no
// connection, follows no way from https to http, and bounds time and size of
// every answer.
//
// The packages below it know one cloud each: Here says by SMBIOS whether the
// machine is in it, Fetch reads user-data, meta-data and network-config. They
// interpret nothing of the user's documents. Package source chooses between
// them, retries and decides what counts.
package metadata
