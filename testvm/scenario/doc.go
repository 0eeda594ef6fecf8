// Package scenario boots whole machines in QEMU and holds them to what an
// operator relies on: first boots, reboots, power cuts, mistakes, damage and
// crashes. It is only tests; nothing imports it.
//
//	go test ./testvm/scenario -vm -image $PWD/build/keelson-amd64.raw -run Scenario1
//
// Without -vm they skip. They run one after the other, since a machine takes
// all that a small host has; under TCG a boot takes a minute or more, so that
// scenarios 1, 3 and 7 share one machine. Each of them also runs alone. Every
// wait is for a line of the console or a change in the API; deadlines are there
// for what does not work. A failure leaves a folder in build/vm/reports.
package scenario
