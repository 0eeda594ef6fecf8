// Package conformance runs specs of Kubernetes' own end-to-end suite against a cluster that is there.
//
// It builds the suite and its test images from the very module that the cluster was built from, so that both are of one
// version, and serves the images from a registry of the test; nothing is pulled. What the images have besides
// Kubernetes' programs (a shell, curl, dig, netcat, nginx) is Debian's. It never judges a spec itself: results are the
// suite's own. The suite is a gigabyte of compiled code and long to run, so that nothing but `make conformance` uses
// it, which calls the test of package cluster.
package conformance
