// Package install puts the system of a CD or stick that runs live on a disk of the machine.
//
// Scan and Choose select the disk by what the kernel says of it, Look judges what it holds, New makes the plan, and Run
// carries it out. What is written comes from the medium, whose payload (layout.Payload, made by imagebuild/payload) says
// which of its bytes go where; user-data goes along, to where a machine keeps what it has accepted. Package main of init
// calls it where user-data has the key install and the machine runs live.
//
// A power cut at any moment leaves the disk as it was or one that the installer begins with again: the first write is the
// first sector alone, which marks the disk as not finished and has a BIOS go on to the next device; the old partition tables
// go next; content is written, flushed and read back before anything on the disk can be started; and what makes it startable
// is one sector, the last. The package never writes to the medium, to a disk in use, or, without wipe, to one that holds
// anything.
package install
