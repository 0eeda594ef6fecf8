// Package backdoor asks the hypervisor of VMware for values of the machine, by
// the channel that its tools use: instructions that read the I/O port 0x5658,
// which the hypervisor answers in the registers.
//
// Source: github.com/vmware/open-vm-tools, lib/include/backdoor_def.h and
// guest_msg_def.h for the numbers, lib/message/messageBackdoor.c and
// lib/rpcOut/rpcout.c for their order; Linux drivers/gpu/drm/vmwgfx/
// vmwgfx_msg.c follows the same. Only the narrow transport is used, four bytes
// an instruction: a document of 64 KiB is some 16 000 of them, well below a
// second. Package vmware starts Do once SMBIOS says VMware, and interprets the
// values; nothing is written to the hypervisor.
//
// On arm64 the hypervisor is reached by other instructions: Do says so there.
package backdoor
