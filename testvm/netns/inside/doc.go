// Package inside is PID 1 of a namespace machine: what init does on a real one, as far as there is something to do
// where the kernel runs already. It makes the file systems, takes the user-data, and keeps node running.
//
// It is test code, but as little of its own as can be: user-data is read, checked and applied, files are written and
// services kept by init's packages. Its settings come through a pipe from package netns, which has put it into
// namespaces and cgroups and given it a network; its console is its standard output. When the pipe closes, the
// machine ends with every process in it.
package inside

import "keelson/init/userdata"

// Config is what a machine is made of.
type Config struct {
	Root       string             // a block device with an EROFS, or a folder
	Folder     bool               // Root is a folder
	At         string             // an empty folder where the root is put together
	State      string             // the folder that is the machine's disk
	Documents  userdata.Documents // its user-data and the rest
	NameServer string             // for resolv.conf
	Cgroups    []Hierarchy        // of version 1; none: the host has version 2
}

// Hierarchy is one cgroup mount of version 1.
type Hierarchy struct {
	Name        string // of the folder below /sys/fs/cgroup
	Controllers string // as mount's options, such as "cpu,cpuacct"
}

// Pipe is the descriptor of the settings, and Go the byte that the harness writes to it once the machine is in its
// cgroups; the settings follow as JSON.
const (
	Pipe = 3
	Go   = '\n'
)
