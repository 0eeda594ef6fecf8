// Command node is the supervisor of a Keelson machine: PID 1 starts it as `node server`, and it makes the machine a
// Kubernetes server with RKE2's protocol, files and configuration. The verbs kubectl, ctr, crictl and etcdctl start the
// tools of the same name, set up for this machine's cluster.
package main

import (
	"os"

	"keelson/node/command"
)

// version is stamped by the builder.
var version = "dev"

func main() { os.Exit(command.Main(os.Args[1:], version, os.Stdout, os.Stderr)) }
