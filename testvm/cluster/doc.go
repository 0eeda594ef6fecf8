// Package cluster holds clusters of several machines to what an operator relies on: joins, the loss of any server, of
// all of them, of the network between them, replacements, mistakes, restores and rotations. It is only tests; nothing
// imports it.
//
//	go test ./testvm/cluster -netns -root $PWD/build/amd64/root.erofs -run Scenario1
//
// Its machines are namespaces of this host (package netns), which needs root; without -netns they skip. Scenarios run
// one after the other, each on a cluster of its own. Every wait is for a line of a console or a change in the API;
// deadlines are there for what does not work. A failure leaves a folder in build/netns/reports.
package cluster
