// Package netconfig parses network-config documents, version 1 and 2, as
// cloud-init's NoCloud source knows them.
//
// Documents come from package source; package network applies the result. An
// empty result means the default: DHCPv4 and IPv6 autoconfiguration on every
// ethernet. Bonds, bridges and VLANs are made; tunnels and wifi are refused by
// name with their line, so that a machine never comes up half-connected in
// silence. OpenStack's network_data.json becomes the same Plan.
// Package netconfig never touches the machine.
//
//	plan, problems := netconfig.Load(docs.Network)
//
// Formats: canonical/cloud-init doc/rtd/reference/network-config-format-v1.rst
// and -v2.rst.
package netconfig
